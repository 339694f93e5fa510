"""Where the time of a step goes, by TensorFlow's profiler, beside what the machine could do.

    python scripts/bench/profile_step.py --network=cifar_resnet18 --precision=float32
    python scripts/bench/profile_step.py --network=cifar_resnet18 --without onednn winograd memory

`--without` takes back what the project does for CPUs: TensorFlow's oneDNN where it is off by default,
convolutions by their shape, Winograd's tiles among them, freed memory kept for the next step. Limits are
measured in the same process: the peak by large matrix products, the memory's rate by adding large
vectors. An operation's floor is the larger of its products at that peak and of its inputs and outputs,
each moved once, at that rate; what stays in the caches can be faster.
Operations of the two views run at a time and share the cores, so the step's seconds are
divided over the classes in proportion to the time of their operations.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import bench_harness

CLASSES = {  # by what an operation's type contains, the first that fits
    "convolutions": ("Conv2D",),
    "matrix products": ("MatMul",),
    "functions of XLA": ("ExecuteAsyncOnStream",),  # Winograd's tiles; in bfloat16 ReLU's gradients
    "BN": ("BatchNorm",),
    "update": ("ResourceApplyMomentum",),
    "ReLU and its gradient": ("Relu",),
    "sums and scalings": ("AddN", "AddV2", "Mul"),
    "padding, slices, copies": ("Pad", "Slice", "Transpose", "Concat", "MklToTf", "Cast", "Tile"),
}
REST = "the rest"
NOT_OPERATIONS = ("Process", "Start", "Done", "Run", "FunctionRun")  # of the executor itself
SIDE = 4096  # of the large product
LONG = 2**26  # numbers of the large vectors
AT_A_TIME = 2
SKIPPED = ("onednn", "winograd", "memory")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--network", choices=("quickstart", "cifar_resnet18", "resnet50"), default="quickstart"
    )
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch_size", type=int, help="images a step; the network's own by default")
    parser.set_defaults(device="cpu")
    parser.add_argument("--steps", type=int, default=5, help="that are profiled")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--without", nargs="*", choices=SKIPPED, default=[], help="leave out")
    parser.add_argument("--trace", metavar="FOLDER", help="keep the trace there, for TensorBoard's profiler")
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    args = parser.parse_args(argv)
    if "onednn" in args.without:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    found = _profile(args)
    facts = {**bench_harness.machine(args.threads), "network": args.network, "precision": args.precision}
    facts |= {"without": args.without, **found}
    print(_table(facts))
    bench_harness.write_json(args.json, facts)
    return 0


def _profile(args: argparse.Namespace) -> dict:
    import bench_step
    import tensorflow as tf

    from simsiam_tf import nets
    from simsiam_tf.runtime import malloc

    if "memory" not in args.without:
        malloc.keep()
    if "winograd" in args.without:
        nets.fast_cpu_convolutions(False)
    traced, views, facts = bench_step.traced_step(args.precision, args)
    for _ in range(bench_harness.WARM_UP):
        traced(views)["loss"].numpy()
    before, times = resource.getrusage(resource.RUSAGE_SELF), []
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(args.trace or folder)
        for _ in range(args.steps):
            began = time.perf_counter()
            traced(views)["loss"].numpy()
            times.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
        tf.profiler.experimental.stop()
        seconds, calls = _by_class(args.trace or folder, args.steps)
    limits = _limits(args.precision)
    return {
        **facts,
        "step": statistics.median(times),
        "operation_seconds": seconds,
        "calls": calls,
        "floors": _floors(traced, limits),
        "page_faults": (after.ru_minflt - before.ru_minflt) / args.steps,
        "user_seconds": (after.ru_utime - before.ru_utime) / args.steps,
        "system_seconds": (after.ru_stime - before.ru_stime) / args.steps,
        **limits,
    }


def _class_of(kind: str) -> str:
    return next((name for name, parts in CLASSES.items() if any(p in kind for p in parts)), REST)


def _by_class(folder: str, steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and calls a step of each class of operations, off the trace on the CPU's threads."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    path = max(Path(folder).rglob("*.xplane.pb"), key=lambda p: p.stat().st_mtime)
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds: dict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for plane in (p for p in space.planes if p.name == "/host:CPU"):
        for line in (line for line in plane.lines if line.name != "python"):
            for event in line.events:
                found = plane.event_metadata[event.metadata_id]
                kind = found.display_name or found.name.rpartition("::")[2]
                if kind in NOT_OPERATIONS or (not found.display_name and kind != "ExecuteAsyncOnStream"):
                    continue
                seconds[_class_of(kind)] += event.duration_ps / 1e12 / steps
                calls[_class_of(kind)] += 1
    return dict(seconds), {name: count / steps for name, count in calls.items()}


def _limits(precision: str) -> dict[str, float]:
    """Products a second of large matrix products, and bytes a second of adding large vectors.

    Two of either at a time, as the views of a step: after `threads.core_a_view` one keeps one core busy.
    """
    import tensorflow as tf

    dtype = tf.as_dtype(precision)
    squares = [tf.cast(tf.random.normal([SIDE, SIDE]), dtype) for _ in range(AT_A_TIME)]
    vectors = [tf.random.normal([LONG]) for _ in range(AT_A_TIME)]
    product = tf.function(lambda: tf.add_n([tf.matmul(a, a)[0, 0] for a in squares]))
    added = tf.function(lambda: tf.add_n([(x + x)[0] for x in vectors]))

    def fastest(call, repeats: int = 7) -> float:  # noqa: ANN001
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            call().numpy()
            times.append(time.perf_counter() - began)
        return min(times)

    return {
        "flops": AT_A_TIME * 2 * SIDE**3 / fastest(product),
        "bytes": AT_A_TIME * 2 * 4 * LONG / fastest(added),
    }


def _floors(traced, limits: dict[str, float]) -> dict[str, float]:  # noqa: ANN001
    """Seconds that each class cannot go below, of those whose graph says it."""
    import onednn_floor

    floors: dict[str, float] = defaultdict(float)
    for op in onednn_floor.needed(traced):
        name = "functions of XLA" if "PartitionedCall" in op.type else _class_of(op.type)
        if op.type in ("ReadVariableOp", "Const") or name not in FLOORED:
            continue
        moved = sum(_bytes(t) for t in (*op.inputs, *op.outputs)) / limits["bytes"]
        floors[name] += max(moved, onednn_floor.flops(op) / limits["flops"])
    return dict(floors)


FLOORED = (
    "convolutions", "matrix products", "functions of XLA", "BN", "ReLU and its gradient", "sums and scalings",
)  # fmt: skip


def _bytes(tensor) -> int:  # noqa: ANN001
    known = tensor.shape.is_fully_defined() and tensor.dtype.size
    return tensor.shape.num_elements() * tensor.dtype.size if known else 0


def _table(facts: dict) -> str:
    scale = facts["step"] / sum(facts["operation_seconds"].values())
    lines = [
        f"{facts['network']}, batch {facts['batch']}, {facts['precision']}, {facts['date']}"
        + (f", without {', '.join(facts['without'])}" if facts["without"] else ""),
        f"{facts['cpu']}, {facts['threads']} threads; tensorflow {facts['tensorflow']}",
        f"a step {facts['step']:.3f} s; CPU {facts['user_seconds']:.2f} s user, "
        f"{facts['system_seconds']:.2f} s system; {facts['page_faults']:,.0f} page faults",
        f"limits: {facts['flops'] / 1e9:.0f} GFLOP/s, {facts['bytes'] / 1e9:.1f} GB/s",
        "",
        f"{'of the step':24}{'seconds':>9}{'share':>8}{'calls':>7}{'floor':>9}{'floor / seconds':>17}",
    ]
    for name, seconds in sorted(facts["operation_seconds"].items(), key=lambda item: -item[1]):
        seconds, floor = scale * seconds, facts["floors"].get(name)
        shown = f"{floor:9.3f}{100 * floor / seconds:15.0f} %" if floor else f"{'–':>9}{'–':>17}"
        lines.append(
            f"{name:24}{seconds:9.3f}{100 * seconds / facts['step']:6.0f} %{facts['calls'][name]:7.0f}{shown}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
