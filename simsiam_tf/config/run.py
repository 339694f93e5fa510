"""What every run that trains has in common."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Self

from simsiam_tf.config.fields import BIG, FOLDER, Config, is_folder, option
from simsiam_tf.runtime.errors import UserError

RUN_RANGES = (
    ("seed", 0, BIG), ("log_every", 1, BIG), ("save_minutes", 0, BIG), ("keep", 1, 1000),
    ("join_minutes", 0.01, 1e5),
)  # fmt: skip
PATHS = ("workdir", "weights", "data_dir")


def check_epochs(config: Any) -> None:
    """Raises UserError for no epochs, or a warm-up that takes them all."""
    if not config.epochs > 0:
        raise UserError(f"epochs={config.epochs}: must be above 0.")
    if config.warmup_epochs >= config.epochs:
        raise UserError(f"warmup_epochs={config.warmup_epochs}: must be below epochs={config.epochs}.")


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
    """A work folder, devices, arithmetic, and how often things are written."""

    RANGES = RUN_RANGES
    NO_EFFECT = ((("jit_compile",), "strategy", lambda v: v == "tpu", "strategy=tpu, which always compiles"),)

    workdir: str | None = option(
        None,
        "folder of this run: weights, logs, checkpoints. Rerunning the same command continues it",
        "Run",
        free=True,
    )
    seed: int = option(0, "of initial weights, order and augmentation")
    strategy: str = option(
        "auto",
        "devices; auto: all GPUs, a TPU, the workers of TF_CONFIG, or one device",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
        free=True,
    )
    join_minutes: float = option(10.0, "how long several workers wait for each other at the start", free=True)
    precision: str = option(
        "auto",
        "arithmetic; auto: bfloat16 where the hardware computes in it",
        choices=("auto", "float32", "bfloat16"),
    )
    augment_on: str = option(
        "auto",
        "where jitter, gray, blur and flip run; auto: with the model on GPUs and TPUs, else on the host. "
        "Decoding and cropping always run on the host",
        choices=("auto", "host", "device"),
        free=True,
    )
    jit_compile: str = option(
        "auto",
        "XLA; auto: for the model on TPUs only (on CPUs it was measured to be slower), and for the "
        "augmentation of views above 64 pixels; false: for neither",
        choices=("auto", "true", "false"),
        free=True,
    )
    log_every: int = option(20, "steps between records of metrics")
    record: str = option(
        "tensorboard,jsonl",
        "where metrics go, with commas between them: tensorboard (workdir/tb), jsonl (metrics.jsonl, which "
        "report reads), wandb, mlflow",
        free=True,
    )
    save_minutes: float = option(
        10.0, "minutes between checkpoints, which are also made at every epoch's end", free=True
    )
    keep: int = option(2, "checkpoints kept", free=True)

    def validate(self) -> Self:
        """Returns itself, or raises UserError for the first value that cannot be."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and (len(value.splitlines()) > 1 or value != value.strip()):
                raise UserError(
                    f"{field.name}={value!r}: begins or ends with a space or has a line break, which the "
                    "run's flagfile could not hold. Choose another."
                )
        return super().validate()

    def absolute(self) -> Self:
        """The same with absolute paths, so that its flagfile works in any working folder."""
        changes = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if is_folder(value):
                changes[field.name] = FOLDER + _absolute(value.removeprefix(FOLDER))
            elif field.name in PATHS and value:
                changes[field.name] = _absolute(value)
        return dataclasses.replace(self, **changes)


def _absolute(path: str) -> str:
    # NOTE: not abspath, which takes link/.. for the folder of the link.
    return os.path.join(os.getcwd(), os.path.expanduser(path))
