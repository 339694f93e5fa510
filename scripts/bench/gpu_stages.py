"""Measures what docs/gpu.md lists, the most important first, each stage in processes of its own.

    python scripts/bench/gpu_stages.py runs/gpu
    python scripts/bench/gpu_stages.py --list

scripts/bench/gpu.sh runs this. A stage that fails, or reaches its time limit, does not stop the others. The
figures of a stage are appended to OUT/figures.jsonl as soon as it has ended, and the tables are written anew
(`gpu_page.py`): those of docs/gpu.md, or with --device=cpu or --tiny those of a copy, OUT/gpu.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import bench_harness
import gpu_page
import gpu_sampler

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUT_OF_MEMORY = "out of memory"
SHORTEST = 15  # seconds; a stage is not begun when less of the time is left
LIBRARIES = ("tensorflow", "keras", "torch", "torchvision", "triton", "nvidia-cudnn-cu12")
AUTOCLUSTERING = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2"}
QUICK_COMPILER = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # of XLA on a CPU


@dataclasses.dataclass(frozen=True)
class Stage:
    """One measurement.

    item: its number in the list of docs/gpu.md. limit: seconds. command: a script of this folder and its
    flags; --json=FILE is added. torch: whether it needs PyTorch. smaller_than: a stage; this one is left out
    unless that has run out of memory. of_winner: whether flags and variables of the fastest step are added.
    """

    name: str
    item: int
    limit: float
    command: tuple[str, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    torch: bool = False
    smaller_than: str | None = None
    of_winner: bool = False


# The steps of a call of `bench_end_to_end.py` take more batches than the workers of a DataLoader hold ready.
FULL = {
    "step": ("--network=resnet50", "--repeats=2", "--calls=1"), "half": ("--batch_size=128",),
    "quarter": ("--batch_size=64",), "profile": ("--network=resnet50",),
    "fed": ("--network=resnet50", "--steps=16"), "training": (), "size": ("--image_size=32",),
    "quickstart": (), "long": ("--end=300",), "on the CPU": ("--end=20",),
    "search": ("--bank=1281167", "--queries=50000", "--k=200"),
}  # fmt: skip
TINY = {
    "step": ("--network=quickstart", "--batch_size=8", "--repeats=1", "--calls=1"),
    "half": ("--batch_size=4",), "quarter": ("--batch_size=2",),
    "profile": ("--network=quickstart", "--batch_size=8", "--steps=2", "--side=256"),
    "fed": ("--network=small", "--batch_size=8", "--steps=1"),
    "training": ("--backbone=resnet10", "--width=0.125", "--batch_size=32", "--monitor=none"),
    "size": ("--image_size=8",), "quickstart": ("--end=3",), "long": ("--end=3",), "on the CPU": ("--end=2",),
    "search": ("--bank=4096", "--queries=256", "--width=64", "--k=20"),
}  # fmt: skip


def stages(device: str = "gpu", tiny: bool = False, data: str = "fashion_mnist") -> list[Stage]:
    """All stages in their order. tiny: at sizes for two slow cores. data: images of the two trainings."""
    on, size = f"--device={device}", TINY if tiny else FULL
    bfloat16 = "--precision=float32" if tiny else "--precision=bfloat16"  # which few CPUs compute fast
    step = ("bench_step.py", on, *size["step"])
    fed = ("bench_end_to_end.py", on, bfloat16, "--repeats=1", "--calls=2", *size["fed"])
    profile = ("profile_step.py", on, bfloat16, *size["profile"])
    run = ("bench_run.py", "--repeats=1", on)
    run_on_cpu = ("bench_run.py", "--repeats=1", "--device=cpu", *size["on the CPU"])
    common = (f"--data={data}", *size["training"])
    quickstart = ("--", "--flagfile=flags/quickstart.cfg", "--epochs=2", *common)
    cifar = (
        "--",
        "--flagfile=flags/cifar10/simsiam.cfg",
        "--monitor=none",
        "--epochs=5",
        *size["size"],
        *common,
    )
    reference = ("--precision=float32", "--augment_on=host")
    return [
        Stage("ours", 1, 75, (*step, bfloat16, "--only=ours")),
        Stage("PyTorch", 1, 60, (*step, bfloat16, "--only=torch"), torch=True),
        Stage("ours, whole step by XLA", 1, 150, (*step, bfloat16, "--only=XLA")),
        Stage(
            "ours, whole step by XLA, half the batch", 1, 120, (*step, bfloat16, "--only=XLA", *size["half"]),
            smaller_than="ours, whole step by XLA",
        ),
        Stage("PyTorch, torch.compile", 1, 120, (*step, bfloat16, "--only=compiled"), torch=True),
        Stage("ours, autoclustering", 1, 120, (*step, bfloat16, "--only=ours"), AUTOCLUSTERING),
        Stage("ours, float32", 1, 60, (*step, "--precision=float32", "--only=ours")),
        Stage("PyTorch, float32", 1, 60, (*step, "--precision=float32", "--only=torch"), torch=True),
        Stage("products alone", 1, 60, (*step, bfloat16, "--only=floor")),
        Stage("profile of the fastest", 2, 90, profile, of_winner=True),
        Stage("views on the device", 3, 75, (*fed, "--only=ours", "--augment_on=device"), of_winner=True),
        Stage("views on the host", 3, 75, (*fed, "--only=ours", "--augment_on=host"), of_winner=True),
        Stage("PyTorch, DataLoader", 3, 75, (*fed, "--only=torch"), torch=True),
        Stage("quickstart", 4, 75, (*run, *size["quickstart"], *quickstart)),
        Stage("quickstart on the CPU", 4, 60, (*run_on_cpu, *quickstart, *reference)),
        Stage("CIFAR ResNet-18", 4, 75, (*run, *size["long"], *cifar)),
        Stage("CIFAR ResNet-18 on the CPU", 4, 60, (*run_on_cpu, *cifar, *reference)),
        Stage("a quarter of the batch", 5, 45, (*step, bfloat16, "--only=ours", *size["quarter"])),
        Stage("half the batch", 5, 45, (*step, bfloat16, "--only=ours", *size["half"])),
        Stage("kNN", 6, 120, ("bench_knn.py", on, "--repeats=1", *size["search"])),
    ]  # fmt: skip


def with_winner(stage: Stage, figures: list[dict]) -> Stage:
    """A stage that runs the fastest of our steps: with XLA, with autoclustering, or as it is."""
    winner = gpu_page.fastest(figures) if stage.of_winner else None
    if winner == "ours, whole step by XLA":
        flag = "--xla" if stage.command[0] == "profile_step.py" else "--jit_compile=true"
        return dataclasses.replace(stage, command=(*stage.command, flag))
    if winner == "ours, autoclustering":
        return dataclasses.replace(stage, environment={**stage.environment, **AUTOCLUSTERING})
    return stage


def run_stage(stage: Stage, limit: float, environment: dict[str, str]) -> dict:
    """Runs a stage: {"status": "done", "result": …}, or "failed" or "skipped" with a "reason"."""
    if stage.torch and importlib.util.find_spec("torch") is None:
        return {"status": "skipped", "reason": "torch is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log"
        script, *flags = stage.command
        command = [sys.executable, str(HERE / script), f"--json={result}", *flags]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env={**environment, **stage.environment},
            )  # fmt: skip
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                return {"status": "failed", "reason": f"no result within {limit:.0f} s"}
            finally:
                _kill_group(process.pid)
                process.wait()
        text = log.read_text(errors="replace")
        print(text[-2000:], file=sys.stderr)
        if status != 0 or not result.exists():
            return {"status": "failed", "reason": reason_of(text) or f"exit status {status}"}
        return {"status": "done", "result": json.loads(result.read_text())}


def _kill_group(group: int) -> None:
    """Ends a stage's process with its candidates and workers, which are in one process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def reason_of(log: str) -> str:
    """The line of a log that says why its program failed: of memory, of an exception, or the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any("RESOURCE_EXHAUSTED" in line or re.search("out of memory|OutOfMemory", line) for line in lines):
        return OUT_OF_MEMORY
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|SystemExit)\b", line)]
    line = (raised or [line for line in lines if "ended early" not in line] or [""])[-1]
    return line.replace("|", "/")[:160]


def machine(device: str) -> dict:
    """The machine, its card and driver, the versions and the date."""
    known = {"status": "machine", "device": device, **bench_harness.machine_metadata(os.cpu_count() or 1)}
    query = ["nvidia-smi", f"--id={gpu_sampler.gpu_id()}", "--format=csv,noheader"]
    query.append("--query-gpu=name,memory.total,driver_version")
    if device == "gpu":
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
            known["card"] = done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            known["card"] = "unknown card"
    for library in LIBRARIES:
        try:
            known[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    chosen = stages(args.device, args.tiny, args.data or ("digits" if args.tiny else "fashion_mnist"))
    if args.list:
        for stage in chosen:
            variables = [f"{name}={value}" for name, value in stage.environment.items()]
            command = shlex.join([*variables, *stage.command])
            print(f"{stage.item}  {stage.name:40} {stage.limit:4.0f} s  {command}")
        return 0
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    page = ROOT / "docs" / "gpu.md"
    if args.tiny or args.device == "cpu":
        copy = out / "gpu.md"
        copy.write_text(page.read_text())
        page = copy
    log, here = out / "figures.jsonl", {**machine(args.device), "tiny": args.tiny}
    figures = gpu_page.read(log)
    if figures and any(figures[0].get(key) != here[key] for key in ("cpu", "device", "tiny")):
        print(f"{log}: has the figures of another machine or size. Pass another folder.", file=sys.stderr)
        return 2
    if not figures:
        _append(log, here)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    if args.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    else:  # one GPU, which PyTorch and TensorFlow number as nvidia-smi does
        environment |= {"CUDA_VISIBLE_DEVICES": gpu_sampler.gpu_id(), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment |= QUICK_COMPILER if args.tiny and args.device == "cpu" else {}
    end, factor = time.monotonic() + 60 * args.minutes, 8 if args.tiny else 1
    for stage in chosen:
        figures = gpu_page.read(log)
        lines = gpu_page.newest(figures)
        if lines.get(stage.name, {}).get("status") == "done":
            continue
        if stage.smaller_than and lines.get(stage.smaller_than, {}).get("reason") != OUT_OF_MEMORY:
            continue
        left, began = end - time.monotonic(), time.monotonic()
        print(f"\n{stage.item}. {stage.name}: {left:.0f} s left", file=sys.stderr)
        stage = with_winner(stage, figures)
        outcome = {"status": "not run", "reason": f"the {args.minutes:g} minutes were over"}
        if left >= SHORTEST:
            outcome = run_stage(stage, min(factor * stage.limit, left), environment)
        about = {"stage": stage.name, "item": stage.item, "command": shlex.join(stage.command)}
        _append(log, {**about, "seconds": round(time.monotonic() - began, 1), **outcome})
        gpu_page.write_page(page, gpu_page.read(log))
    print(f"{log}: the figures; {page}: the tables")
    return 0


def _append(log: Path, line: dict) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", nargs="?", default="runs/gpu", help="folder for the figures")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the list without a GPU")
    parser.add_argument("--minutes", type=float, help="minutes in all; 10, or with --tiny 60")
    parser.add_argument("--data", help="images of the trainings; fashion_mnist, or with --tiny digits")
    parser.add_argument("--list", action="store_true", help="print the stages and their commands only")
    args = parser.parse_args(argv)
    args.minutes = args.minutes or (60 if args.tiny else 10)
    return args


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the stage that runs, too
    sys.exit(main())
