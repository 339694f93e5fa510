"""One optimisation step of ours against PyTorch's, in alternation, on this machine's CPU.

    python scripts/bench_step.py --network=cifar_resnet18 --precision=both --json=step.json

Both sides compute the forward pass of two views, the gradients and the SGD update, from one batch
in memory: no data pipeline. Every side lives in a process of its own and sleeps while the
other runs. PyTorch has channels-last memory and, for bfloat16, autocast.

Run it on an idle machine. One busy core of two slowed PyTorch's OpenMP threads ninefold and
TensorFlow's hardly at all: a ratio taken then is about the scheduler. So the CPU time of other
programs is measured along with every step, and a disturbed contest is marked as such.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

NETWORKS = {  # flagfile, pixels, channels, batch on a CPU (None: the flagfile's)
    "quickstart": ("flags/quickstart.cfg", 28, 1, None),
    "cifar_resnet18": ("flags/cifar10/simsiam.cfg", 32, 3, 128),
    "resnet50": ("flags/imagenet/simsiam_100ep.cfg", 224, 3, 16),
}
SETTLE_SECONDS = 0.3  # until the threads of the side that has just run are asleep
DISTURBED = 0.1  # cores taken by other programs above which a contest is marked


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is missing. Try: pip install 'simsiam-tf[parity]'", file=sys.stderr)
        return 2
    sides = ["ours", "torch", *(["torch compiled"] if args.torch_compile else [])]
    if args.torch_compile == "only":
        sides.remove("torch")
    wanted = ["float32", "bfloat16"] if args.precision == "both" else [args.precision]
    facts = {
        "network": args.network, "threads": args.threads, "steps": args.steps, "repeats": args.repeats,
        "cpu": _cpu(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    results = []
    for precision in wanted:
        contest = _contest(args, sides, precision)
        facts |= contest.pop("facts")
        results.append(contest)
    print(_table(facts, results))
    if args.json:
        Path(args.json).write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="quickstart")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "both"), default="both")
    parser.add_argument("--batch_size", type=int, help="images a step; the network's own by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of either side")
    parser.add_argument("--repeats", type=int, default=5, help="alternations ours/theirs")
    parser.add_argument("--steps", type=int, default=5, help="steps of a side in each alternation")
    parser.add_argument(
        "--torch_compile", nargs="?", const="also", choices=("also", "only"),
        help="torch.compile contests as well; its best side counts",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    return parser.parse_args(argv)


def _contest(args: argparse.Namespace, sides: list[str], precision: str) -> dict:
    """Seconds a step of every side, in strict alternation, and ours over the best of theirs."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    others: list[float] = []  # cores that other programs took meanwhile
    facts: dict = {}
    try:
        for side in sides:
            pipes[side], end = context.Pipe()
            process = context.Process(target=_serve, args=(end, side, precision, args), daemon=True)
            process.start()
            processes.append(process)
            end.close()
            facts |= {k: v for k, v in _receive(pipes[side], side).items() if v is not None}
        sizes = {facts.pop(f"parameters of {side}") for side in sides}
        if len(sizes) > 1:
            raise SystemExit(f"The two sides differ in size: {sizes} parameters.")
        for repeat in range(args.repeats):
            for side in sides:
                began, busy = time.perf_counter(), _busy_seconds()
                pipes[side].send(args.steps)
                times, own = _receive(pipes[side], side)
                others.append((_busy_seconds() - busy - own) / (time.perf_counter() - began))
                seconds[side].append(statistics.median(times))
                time.sleep(SETTLE_SECONDS)
            shown = "  ".join(f"{side} {seconds[side][-1]:.3f}" for side in sides)
            print(
                f"{precision} {repeat + 1}/{args.repeats}: {shown} s, others {others[-1]:.2f} cores",
                file=sys.stderr,
            )
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(10)
            process.terminate()
    best = min(sides[1:], key=lambda side: statistics.median(seconds[side]))
    ratios = [a / b for a, b in zip(seconds["ours"], seconds[best], strict=True)]
    return {
        "facts": {**facts, "parameters": sizes.pop()},
        "precision": precision,
        "median_seconds": {side: statistics.median(values) for side, values in seconds.items()},
        "seconds": seconds, "best_of_theirs": best, "ratios": ratios, "ratio": statistics.median(ratios),
        "cores_of_others": max(others), "disturbed": max(others) > DISTURBED,
    }  # fmt: skip


def _receive(pipe: Connection, side: str) -> dict | tuple[list[float], float]:
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"{side} ended before its time; its message is above.") from None


def _serve(pipe: Connection, side: str, precision: str, args: argparse.Namespace) -> None:
    """A side's process: builds, warms up, then times as many steps as it is asked for."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if hasattr(os, "sched_setaffinity"):  # thread pools of either side, whatever their number
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    step, facts = (_ours if side == "ours" else _theirs)(side, precision, args)
    for _ in range(3):
        step()
    pipe.send(facts)
    while True:
        try:
            count = pipe.recv()
        except EOFError:
            return
        times, before = [], time.process_time()
        for _ in range(count):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        pipe.send((times, time.process_time() - before))


def _config(args: argparse.Namespace):  # noqa: ANN202
    """The flagfile's configuration, with pixels, channels and batch."""
    from simsiam_tf import cli
    from simsiam_tf.config import PretrainConfig

    flagfile, size, channels, batch = NETWORKS[args.network]
    config = cli.parse(PretrainConfig, [f"--flagfile={flagfile}"])
    return config, size, channels, args.batch_size or batch or config.batch_size


def _views(batch: int, size: int, channels: int) -> list:
    import numpy as np

    return list(np.random.default_rng(0).normal(size=(2, batch, size, size, channels)).astype("float32"))


def _ours(side: str, precision: str, args: argparse.Namespace) -> tuple[Callable[[], None], dict]:
    import keras
    import numpy as np
    import tensorflow as tf

    from simsiam_tf import assembly, distribute

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    distribute.set_precision(precision)
    config, size, channels, batch = _config(args)
    model = assembly.build_model(config, channels, size)
    model.compile(assembly.build_optimizer(config, 10_000, 100 * batch))
    model.optimizer.build(model.learned_variables())
    views = tuple(tf.constant(x) for x in _views(batch, size, channels))
    compiled = tf.function(model.step)

    def step() -> None:
        loss = float(compiled(views)["loss"])
        if not np.isfinite(loss):
            raise SystemExit(f"Our loss became {loss}.")

    size = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return step, {**versions, "batch": batch, f"parameters of {side}": size}


def _theirs(side: str, precision: str, args: argparse.Namespace) -> tuple[Callable[[], None], dict]:
    import torch
    from peers import torch_simsiam as peer

    from simsiam_tf import assembly, schedules

    torch.set_num_threads(args.threads)
    config, size, channels, batch = _config(args)
    stem = assembly.stem_for(config, size)
    backbone = peer.Backbone(config.backbone, stem, config.width, channels)
    model = peer.SimSiam(
        backbone, config.d, config.projector_hidden, config.predictor_hidden, config.projector_layers
    )
    count = sum(p.numel() for p in model.parameters())
    model = model.train().to(memory_format=torch.channels_last)
    lr = schedules.scaled(config.base_lr, config.batch_size)
    sgd = torch.optim.SGD(
        model.groups(lr, lr), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    views = [torch.tensor(x).permute(0, 3, 1, 2) for x in _views(batch, size, channels)]
    views = [x.contiguous(memory_format=torch.channels_last) for x in views]
    forward = torch.compile(model) if side == "torch compiled" else model

    def step() -> None:
        sgd.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(*views)[0]
        loss.backward()
        sgd.step()
        if not torch.isfinite(loss):
            raise SystemExit(f"PyTorch's loss became {loss.item()}.")

    return step, {"torch": torch.__version__, f"parameters of {side}": count}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    fast = " with bfloat16" if any("avx512_bf16" in line or "amx_bf16" in line for line in lines) else ""
    return f"{name}{fast}, {os.cpu_count()} cores"


def _busy_seconds() -> float:
    """CPU time that all programs have used since the machine started; NaN where unknown."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return float("nan")
    user, nice, system, _idle, _wait, irq, softirq, _steal = ticks
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _table(facts: dict, results: list[dict]) -> str:
    lines = [
        f"{facts['network']}, batch {facts['batch']}, {facts['parameters']:,} parameters, {facts['date']}",
        f"{facts['cpu']}, {facts['threads']} threads; tensorflow {facts['tensorflow']}, "
        f"keras {facts['keras']}, torch {facts['torch']}",
        f"median seconds a step over {facts['repeats']} alternations of {facts['steps']} steps:",
        "",
        f"{'':10}{'ours':>9}{'torch':>9}{'compiled':>10}{'ours / best torch':>19}  (range)",
    ]
    for r in results:
        cells = [r["median_seconds"].get(side) for side in ("ours", "torch", "torch compiled")]
        shown = [f"{c:.3f}" if c is not None else "–" for c in cells]
        low, high = min(r["ratios"]), max(r["ratios"])
        lines.append(
            f"{r['precision']:10}{shown[0]:>9}{shown[1]:>9}{shown[2]:>10}{r['ratio']:>19.2f}"
            f"  ({low:.2f}–{high:.2f})"
        )
        if r["disturbed"]:
            lines.append(
                f"{'':10}DISTURBED: other programs took up to {r['cores_of_others']:.1f} cores. Do not quote."
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
