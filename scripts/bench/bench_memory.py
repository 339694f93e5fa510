"""Compares the memory that `pretrain --dry_run` estimates with the peak of the run itself, on the CPU.

    python scripts/bench/bench_memory.py --json=memory.json
    python scripts/bench/bench_memory.py --runs=moco,ViT

Each run is the command `pretrain` in a process of its own: three steps on images of random pixels, and the
export. Its peak is the largest resident memory that the system counted, that of libraries included: what has
to be free on a machine. Runs follow one another; the largest takes about 3 GB. Other programs change the
time that this takes, not the memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_harness

MOST_GIB = 6.0  # a run whose estimate is larger is not started
STEPS = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """A pre-training. flags: options besides data and size. unseen: first run when the model was final."""

    batch: int
    size: int
    flags: tuple[str, ...]
    channels: int = 3
    unseen: bool = False


ADAMW = ("--optimizer=adamw", "--base_lr=0.001")
BARE = ("--finish=none",)  # exports without whitening, which takes less time; the other runs whiten
RUNS = {
    "simsiam resnet18": Run(32, 96, ("--backbone=resnet18",)),
    "simsiam resnet18, cifar": Run(64, 32, ("--backbone=resnet18", "--stem=cifar", *BARE)),
    "simsiam resnet50": Run(16, 64, ("--backbone=resnet50", "--stem=imagenet", *BARE)),
    "simclr resnet10": Run(
        256, 28, ("--method=simclr", "--backbone=resnet10", "--stem=small", "--width=0.25", "--d=256"), 1
    ),
    "moco resnet18": Run(
        64, 32,
        ("--method=moco", "--backbone=resnet18", "--stem=cifar", "--width=0.5", "--d=256",
         "--queue=16384", *BARE),
    ),
    "simsiam ViT": Run(
        64, 32, ("--backbone=py:bench_keras_fit:small_vit", "--trust_code", *ADAMW)
    ),
    "byol EfficientNetV2B0": Run(32, 96, ("--method=byol", "--backbone=keras:EfficientNetV2B0", *BARE)),
    "simclr resnet18, small views": Run(
        32, 64, ("--method=simclr", "--backbone=resnet18", "--stem=imagenet", "--local_views=2", *BARE)
    ),
    "swav resnet18": Run(
        128, 32, ("--method=swav", "--backbone=resnet18", "--stem=cifar", "--width=0.5", *BARE), unseen=True
    ),
    "vicreg MobileNetV3Small": Run(
        64, 64, ("--method=vicreg", "--backbone=keras:MobileNetV3Small", *BARE), unseen=True
    ),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", help="words in the names of the runs, separated by commas; default: all")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    words = args.runs.split(",") if args.runs else [""]
    chosen = {name: run for name, run in RUNS.items() if any(word in name for word in words)}
    if not chosen:
        print(f"--runs={args.runs}: none of {'; '.join(RUNS)}.", file=sys.stderr)
        return 2
    metadata = bench_harness.machine_metadata(len(os.sched_getaffinity(0)))
    print(f"{metadata['cpu']}, {metadata['threads']} threads, {metadata['date']}")
    print(f"{'':28}{'estimate MiB':>14}{'peak MiB':>10}{'estimate / peak':>17}")
    results = {}
    for name, run in chosen.items():
        estimate, peak = measure(run)
        results[name] = {"estimate_mib": estimate, "peak_mib": peak, "ratio": estimate / peak}
        print(
            f"{name:28}{estimate:14,.0f}{peak:10,.0f}{estimate / peak:17.2f}{' unseen' * run.unseen}",
            flush=True,
        )
    bench_harness.write_json(args.json, {**metadata, "results": results})
    return 0


def measure(run: Run) -> tuple[float, float]:
    """(MiB that the dry run estimates, MiB that the run took at its peak)."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_images(folder / "images", 2 * run.batch, run.size, run.channels)
        flags = [
            f"--data=folder:{folder / 'images'}", f"--image_size={run.size}", f"--batch_size={run.batch}",
            f"--epochs={STEPS / 2}", "--monitor=none", f"--workdir={folder / 'run'}", *run.flags,
        ]  # fmt: skip
        text, _ = _command([*flags, "--dry_run"])
        found = re.search(r"^memory, estimated +([\d.]+) GiB", text, re.MULTILINE)
        if not found:
            raise SystemExit(f"{text}\n--dry_run estimates no memory.")
        estimate = float(found[1])
        if estimate > MOST_GIB:
            raise SystemExit(f"{run}: would take {estimate} GiB, more than {MOST_GIB}.")
        _, peak = _command(flags)
        return 1024 * estimate, peak


def write_images(folder: Path, count: int, size: int, channels: int) -> None:
    """Writes PNGs of random pixels."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    shape = (size, size) if channels == 1 else (size, size, channels)
    for i in range(count):
        pixels = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.png", compress_level=1)


def _command(flags: list[str]) -> tuple[str, float]:
    """(what `pretrain` prints, MiB of its peak). Ends this program where the command fails."""
    # NOTE: this process is small. The peak of a child that begins as a copy of a larger one would be its own.
    scripts = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path[1:], scripts])}
    command = [sys.executable, "-m", "simsiam_tf.pretrain", *flags]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert child.stdout
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{text}\n{' '.join(command)}: exit status {child.returncode}.")
    return text, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
