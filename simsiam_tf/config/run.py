"""Options that pre-training and supervised training share."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

from simsiam_tf.config.backbones import absolute_network, is_network
from simsiam_tf.config.fields import BIG, Config, Inapplicable, option
from simsiam_tf.config.places import absolute_path, absolute_places, is_file
from simsiam_tf.runtime.errors import UserError

PATHS, NETWORKS = ("workdir", "weights", "teacher", "data_dir"), ("backbone", "weights", "teacher")


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
    """Options for work folder, devices, precision, checkpoints and records, and the optimisation."""

    INAPPLICABLE = (
        Inapplicable(
            ("jit_compile",), "strategy", lambda v: v == "tpu", "strategy=tpu, which always compiles"
        ),
    )

    workdir: str | None = option(
        None,
        "folder for weights, logs and checkpoints; the same command with the same folder continues the run",
        "Run",
        resumable=True,
    )
    seed: int = option(
        0, "seed of the initial weights, of the order of images and of their augmentation", limits=(0, BIG)
    )
    strategy: str = option(
        "auto",
        "devices to train on; auto: those of all workers in TF_CONFIG or of a Slurm job, or else a TPU, or "
        "else all GPUs, or else one CPU",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
        resumable=True,
    )
    join_minutes: float = option(
        10.0, "minutes that workers wait for each other at the start", resumable=True, limits=(0.01, 1e5)
    )
    precision: str = option(
        "auto",
        "number format in which the model computes; auto: bfloat16 where the hardware supports it",
        choices=("auto", "float32", "bfloat16"),
    )
    augment_on: str = option(
        "auto",
        "where the changes after the crop are computed (colours, blur, flips, rotations): on the host, or on "
        "the device with the model; auto: on GPUs and TPUs, else on the host. Images are always decoded and "
        "cropped on the host",
        choices=("auto", "host", "device"),
        resumable=True,
    )
    jit_compile: str = option(
        "auto",
        "what XLA compiles; auto: the whole step on TPUs only (train.log says why), and the augmentation of "
        "views above 64 pixels; true: the whole step too, on one replica; false: neither",
        choices=("auto", "true", "false"),
        resumable=True,
    )
    log_every: int = option(20, "steps between two records of metrics", limits=(1, BIG))
    record: str = option(
        "tensorboard,jsonl",
        "where metrics are written, separated by commas: tensorboard (WORKDIR/tb), jsonl (metrics.jsonl, "
        "which the report reads), wandb, mlflow",
        resumable=True,
    )
    save_minutes: float = option(
        10.0,
        "minutes between checkpoints; there is also one before each evaluation, and one at the end of an "
        "epoch where saving takes less than 1 % of the time",
        resumable=True,
        limits=(0, BIG),
    )
    keep: int = option(2, "number of newest checkpoints to keep", resumable=True, limits=(1, 1000))

    epochs: float = option(100.0, "passes over the training images", "Optimisation")
    batch_size: int = option(512, "images in a step, over all replicas", "Optimisation", limits=(2, 2**20))
    base_lr: float = option(
        0.05,
        "highest learning rate for a batch of 256 (for others times batch_size/256); it decays on a cosine",
        limits=(0, 1e3),
    )
    warmup_epochs: float = option(
        0.0,
        "epochs at the start in which the learning rate rises from 0 (Table 2: 10 from batch 1024 on)",
        limits=(0, BIG),
    )
    momentum: float = option(0.9, "momentum of the optimizer", limits=(0, 0.9999))
    weight_decay: float = option(
        1e-4,
        "L2 penalty on all weights that are trained; for adamw see `optimizer`; in pre-training with lars, "
        "biases and batch normalisation have none, except with swav",
        limits=(0, 1),
    )

    def validate(self) -> Self:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and (len(value.splitlines()) > 1 or value != value.strip()):
                raise UserError(
                    f"{field.name}={value!r}: begins or ends with a space or has a line break, which the "
                    "run's flagfile could not hold. Choose another."
                )
        super().validate()
        self.check_epochs()
        return self

    def check_epochs(self) -> None:
        """Raises UserError where `epochs`, or options in epochs, do not make a run."""
        if not 0 < self.epochs < math.inf:
            raise UserError(f"epochs={self.epochs}: must be above 0, and finite.")
        if self.warmup_epochs >= self.epochs:
            raise UserError(f"warmup_epochs={self.warmup_epochs}: must be below epochs={self.epochs}.")

    def absolute(self) -> Self:
        """The same configuration with absolute paths, whose flagfile works in any working folder."""
        changes = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if is_file(value):
                changes[field.name] = absolute_places(value)
            elif field.name in NETWORKS and is_network(value or ""):
                changes[field.name] = absolute_network(value)
            elif field.name in PATHS and value:
                changes[field.name] = absolute_path(value)
        return dataclasses.replace(self, **changes)


_RUN = {field.name: field.metadata for field in dataclasses.fields(RunConfig)}


def run_option(name: str, default: Any, **changes: Any) -> Any:
    """An option of `RunConfig` with another default, and with other metadata where given."""
    return dataclasses.field(default=default, metadata={**_RUN[name], **changes})
