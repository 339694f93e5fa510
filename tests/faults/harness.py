"""Runs the real command line as a process, and compares what it leaves to the last bit."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.pretrained import backbone_file

TRACED = Path(__file__).with_name("traced.py")
FLAGS = [
    "--data=digits", "--backbone=resnet10", "--stem=cifar", "--width=0.125", "--d=64",
    "--predictor_hidden=32", "--projector_layers=2", "--batch_size=128", "--base_lr=0.2", "--epochs=3",
    "--log_every=1", "--precision=float32", "--strategy=one_device", "--save_minutes=0", "--monitor=none",
]  # fmt: skip
STEPS = 33  # of FLAGS: 3 epochs of 1,437 images, 128 at a time
DONE, INTERRUPTED = 0, 75


@dataclasses.dataclass
class Ended:
    """How a process ended."""

    status: int
    seconds: float
    said: str

    def lines(self) -> list[str]:
        """What it said on stderr, without progress bars and TensorFlow's chatter."""
        bar = re.compile(r"step/s|s/step")
        kept = [line for line in self.said.splitlines() if line.strip() and not bar.search(line)]
        return [line for line in kept if line not in self.chatter()]

    def chatter(self) -> list[str]:
        """What TensorFlow said on stderr."""
        known = re.compile(r"WARNING: All log messages|WARNING:tensorflow|[IWE]0000 ")
        return [line for line in self.said.splitlines() if known.search(line)]


class Run:
    """A work folder, the ids that its processes consumed, and the processes."""

    def __init__(self, workdir: Path, *more: str) -> None:
        self.workdir, self.ids_file = Path(workdir), Path(f"{workdir}.ids")
        self.flags = [*FLAGS, f"--workdir={workdir}", *more]

    @property
    def ready_file(self) -> Path:
        """Which a process makes once it handles signals."""
        return self.ids_file.with_suffix(".ready")

    def start(self, fault: str = "none", *more: str, env: dict | None = None) -> subprocess.Popen:
        """A process of this run; `finish` waits for it."""
        self._began = time.monotonic()
        self.ready_file.unlink(missing_ok=True)
        files = str(self.ids_file), str(self.ready_file)
        command = [sys.executable, str(TRACED), *files, fault, *self.flags, *more]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip

    def finish(self, process: subprocess.Popen, seconds: float = 300) -> Ended:
        """Its end."""
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ended(process.returncode, time.monotonic() - self._began, said)

    def go(self, fault: str = "none", *more: str, env: dict | None = None) -> Ended:
        """A whole process."""
        return self.finish(self.start(fault, *more, env=env))

    def reach(self, process: subprocess.Popen, step: int, seconds: float = 200) -> bool:
        """Waits for the step's record; False where the process ends before."""
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            if self.recorded() >= step:
                return True
            time.sleep(0.002)
        return self.recorded() >= step

    def listens(self, process: subprocess.Popen, seconds: float = 60) -> None:
        """Waits until the process has its handlers of signals: before that Python itself starts."""
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end and not self.ready_file.exists():
            time.sleep(0.002)

    def recorded(self) -> int:
        """The newest step in metrics.jsonl, −1 for none."""
        try:
            found = re.findall(r'"step": (\d+), "loss"', (self.workdir / "metrics.jsonl").read_text())
        except OSError:
            return -1
        return int(found[-1]) if found else -1

    def consumed(self) -> list[tuple[int, str]]:
        """(step, ids) in the order in which the loop took them, over all processes."""
        lines = self.ids_file.read_text().splitlines()
        pairs = (line.split(": ") for line in lines)
        return [(int(step), ids) for step, ids in pairs]

    def variables(self) -> dict[str, np.ndarray]:
        """Variable → value, of the newest checkpoint."""
        return values(self.workdir / "checkpoints" / f"step-{self.newest_step():08d}")

    def last_ids(self) -> dict[int, str]:
        """Step → ids, as taken last."""
        return dict(self.consumed())

    def newest_step(self) -> int:
        """Returns the step of the newest checkpoint, −1 for none."""
        names = [p.name for p in (self.workdir / "checkpoints").glob("step-*")]
        return max((int(name.split("-")[1]) for name in names), default=-1)

    def left(self) -> dict[str, str]:
        """Digests of all that a run leaves: every variable, every record, every exported weight."""
        found = digests(self.workdir / "checkpoints" / f"step-{self.newest_step():08d}")
        for record in (self.workdir / "metrics.jsonl").read_text().splitlines():
            values = json.loads(record)
            key = f"record {values['step']} {sorted(values)}"
            assert key not in found, f"{key} twice"
            found[key] = record
        export = self.workdir / "export" / "backbone.keras"
        if export.exists():
            for v in backbone_file.load_backbone(str(export), finished=True).weights:
                found[f"export {v.path}"] = _sha(np.asarray(v))
            found["card"] = str(backbone_file.read_card(export)["accuracy"])
        return {**found, **{f"ids {step}": ids for step, ids in self.last_ids().items()}}

    def leftovers(self) -> list[str]:
        """Temporary files that should not be there any more."""
        odd = re.compile(r"\.tmp$|^\.writing|^\.removing|^writing\.|_temp")
        return [str(p) for p in self.workdir.rglob("*") if odd.search(p.name)]

    def copy(self, to: Path) -> "Run":
        """Another run that begins with what this one has left."""
        other = Run(to, *self.flags[len(FLAGS) + 1 :])
        shutil.copytree(self.workdir, to)
        shutil.copy(self.ids_file, other.ids_file)
        return other


def values(checkpoint: Path) -> dict[str, np.ndarray]:
    """Variable → value, of a checkpoint."""
    reader = tf.train.load_checkpoint(str(checkpoint / "state"))
    names = [n for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    return {n: reader.get_tensor(n) for n in names}


def digests(checkpoint: Path) -> dict[str, str]:
    """Variable → SHA-256 of its value, of a checkpoint."""
    return {f"variable {n}": _sha(value) for n, value in values(checkpoint).items()}


def _sha(value: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def differing(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Names of what is not the same in two runs."""
    return sorted(name for name in {**a, **b} if a.get(name) != b.get(name))


def check_finished(run: Run, ended: Ended, steps: int = STEPS) -> None:
    """A reference must have run to its end, or comparing with it would prove nothing."""
    assert ended.status == DONE, ended.said
    assert not ended.chatter(), "nothing that a user can mend"
    assert run.newest_step() == run.recorded() == steps
    assert [step for step, _ in run.consumed()] == list(range(steps))
    assert (run.workdir / "export" / "backbone.keras").exists()
    assert len([n for n in run.left() if n.startswith("variable")]) > 50
