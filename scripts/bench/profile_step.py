"""Shows the time of a step by class of operations, beside the least possible time on this machine.

    python scripts/bench/profile_step.py --network=cifar_resnet18 --precision=float32
    python scripts/bench/profile_step.py --network=cifar_resnet18 --without onednn winograd memory
    python scripts/bench/profile_step.py --network=resnet50 --precision=bfloat16 --device=gpu --xla

`--without` turns off optimisations for CPUs. onednn: TensorFlow's oneDNN. winograd: every convolution
algorithm that is chosen by shape, not only Winograd's. memory: freed memory is kept for the next step.

The machine's limits are measured in the same process: peak arithmetic by large matrix products, memory
bandwidth by adding large vectors. An operation's floor is the larger of two times: its products at that peak,
and its inputs and outputs moved once at that bandwidth. An operation whose tensors are in the caches can take
less than its floor. Operations of the two views run at the same time and share the cores, so the step's
seconds are divided over the classes in proportion to the time of their operations. On a GPU the time is that
of the kernels, `idle` is the rest of the step, and the classes have no floors.
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
from collections.abc import Iterator
from pathlib import Path

import bench_harness

CLASSES = {  # class → words; an operation is in the first class with a word that its type contains
    "convolutions": ("Conv2D",),
    "matrix products": ("MatMul",),
    "functions of XLA": ("ExecuteAsyncOnStream",),  # Winograd's tiles; on GPUs BN in bfloat16
    "BN": ("BatchNorm",),
    "update": ("ResourceApplyMomentum",),
    "ReLU and its gradient": ("Relu",),
    "sums and scalings": ("AddN", "AddV2", "Mul"),
    "padding, slices, copies": ("Pad", "Slice", "Transpose", "Concat", "MklToTf", "Cast", "Tile"),
}
REST = "the rest"
LIBRARY_CALLS = ("conv", "gemm", "cublas", "custom-call")  # in names of XLA's operations that are no fusions
NOT_OPERATIONS = ("Process", "Start", "Done", "Run", "FunctionRun")  # events of the executor itself
MATRIX_SIDE = 4096  # rows and columns of the large matrices
VECTOR_LENGTH = 2**26
LANES = 2  # the views of a step, which are computed at the same time
OPTIMISATIONS = ("onednn", "winograd", "memory")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--network", choices=("quickstart", "cifar_resnet18", "resnet50"), default="quickstart"
    )
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch_size", type=int, help="images a step; the network's own by default")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--xla", action="store_true", help="the whole step is compiled by XLA")
    parser.add_argument("--steps", type=int, default=5, help="steps to profile")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", type=int, help="rows of the matrices that measure the peak arithmetic")
    parser.add_argument(
        "--without", nargs="*", choices=OPTIMISATIONS, default=[], help="optimisations to turn off"
    )
    parser.add_argument("--trace", metavar="FOLDER", help="folder for the trace, for TensorBoard's profiler")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    if "onednn" in args.without:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    profile = _profile(args)
    metadata = {
        **bench_harness.machine_metadata(args.threads),
        "network": args.network,
        "precision": args.precision,
    }
    metadata |= {"without": args.without, **profile}
    print(_table(metadata))
    bench_harness.write_json(args.json, metadata)
    return 0


def _profile(args: argparse.Namespace) -> dict:
    import bench_step
    import tensorflow as tf

    from simsiam_tf import nets
    from simsiam_tf.runtime import malloc

    if "memory" not in args.without:
        malloc.retain_freed_memory()
    if "winograd" in args.without:
        nets.fast_cpu_convolutions(False)
    traced, views, metadata = bench_step.traced_step(args.precision, args, args.xla)
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
        seconds, calls = _by_class(args.trace or folder, args.steps, args.device)
    limits = _limits(args.precision, args.side or MATRIX_SIDE * (4 if args.device == "gpu" else 1))
    if args.device == "gpu":
        seconds["idle"] = max(0.0, statistics.median(times) - sum(seconds.values()))
    return {
        **metadata,
        "step": statistics.median(times),
        "operation_seconds": seconds,
        "calls": calls,
        "floors": _floors(traced, limits) if args.device == "cpu" else {},
        "page_faults": (after.ru_minflt - before.ru_minflt) / args.steps,
        "user_seconds": (after.ru_utime - before.ru_utime) / args.steps,
        "system_seconds": (after.ru_stime - before.ru_stime) / args.steps,
        **limits,
    }


def _class_of(kind: str) -> str:
    return next((name for name, patterns in CLASSES.items() if any(p in kind for p in patterns)), REST)


def _by_class(folder: str, steps: int, device: str) -> tuple[dict[str, float], dict[str, float]]:
    """(seconds, calls) per step of each class, from the trace of the CPU's threads or the GPU's streams."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    path = max(Path(folder).rglob("*.xplane.pb"), key=lambda p: p.stat().st_mtime)
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds: dict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for name, duration in (kernels if device == "gpu" else _cpu_operations)(space):
        seconds[name] += duration / steps
        calls[name] += 1
    return dict(seconds), {name: count / steps for name, count in calls.items()}


def _cpu_operations(space) -> Iterator[tuple[str, float]]:  # noqa: ANN001
    """(class, seconds) of each operation on the CPU's threads."""
    for plane in (p for p in space.planes if p.name == "/host:CPU"):
        for line in (line for line in plane.lines if line.name != "python"):
            for event in line.events:
                operation = plane.event_metadata[event.metadata_id]
                kind = operation.display_name or operation.name.rpartition("::")[2]
                if kind in NOT_OPERATIONS or (not operation.display_name and kind != "ExecuteAsyncOnStream"):
                    continue
                yield _class_of(kind), event.duration_ps / 1e12


def kernels(space) -> Iterator[tuple[str, float]]:  # noqa: ANN001
    """(class, seconds) of each kernel and copy on the streams of GPU 0.

    A kernel carries "NAME:TYPE" of the operation that started it, and the operation of XLA, if any.
    """
    for plane in (p for p in space.planes if p.name == "/device:GPU:0"):
        names = {i: stat.name for i, stat in plane.stat_metadata.items()}
        for line in (line for line in plane.lines if line.name.startswith("Stream")):
            for event in line.events:
                stats = {names[s.metadata_id]: s.str_value or names.get(s.ref_value, "") for s in event.stats}
                name = _class_of(stats.get("tf_op", "").rpartition(":")[2])
                if name == REST and (hlo := stats.get("hlo_op")):
                    library = "fusion" not in hlo and any(call in hlo for call in LIBRARY_CALLS)
                    name = "convolutions and products of XLA" if library else "functions of XLA"
                yield name, event.duration_ps / 1e12


def _limits(precision: str, side: int) -> dict[str, float]:
    """FLOP/s of large matrix products, and bytes/s of adding large vectors.

    Two products, or two sums, run at the same time, as the views of a step do.
    """
    import tensorflow as tf

    dtype = tf.as_dtype(precision)
    squares = [tf.cast(tf.random.normal([side, side]), dtype) for _ in range(LANES)]
    vectors = [tf.random.normal([VECTOR_LENGTH]) for _ in range(LANES)]
    product = tf.function(lambda: tf.add_n([tf.matmul(a, a)[0, 0] for a in squares]))
    vector_sum = tf.function(lambda: tf.add_n([(x + x)[0] for x in vectors]))

    def fastest(call, repeats: int = 7) -> float:  # noqa: ANN001
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            call().numpy()
            times.append(time.perf_counter() - began)
        return min(times)

    return {
        "flops": LANES * 2 * side**3 / fastest(product),
        "bytes": LANES * 2 * 4 * VECTOR_LENGTH / fastest(vector_sum),
    }


def _floors(traced, limits: dict[str, float]) -> dict[str, float]:  # noqa: ANN001
    """Lower bound in seconds per step for each class in FLOORED, from the shapes in the graph."""
    import onednn_floor

    floors: dict[str, float] = defaultdict(float)
    for op in onednn_floor.executed_operations(traced):
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
    is_static = tensor.shape.is_fully_defined() and tensor.dtype.size
    return tensor.shape.num_elements() * tensor.dtype.size if is_static else 0


def _table(metadata: dict) -> str:
    on_gpu = "gpu" in metadata  # kernels run one after another; their times add up
    scale = 1.0 if on_gpu else metadata["step"] / sum(metadata["operation_seconds"].values())
    lines = [
        f"{metadata['network']}, batch {metadata['batch']}, {metadata['precision']}, {metadata['date']}"
        + (f", without {', '.join(metadata['without'])}" if metadata["without"] else ""),
        f"{metadata['cpu']}, {metadata['threads']} threads; tensorflow {metadata['tensorflow']}",
        f"a step {metadata['step']:.3f} s; CPU {metadata['user_seconds']:.2f} s user, "
        f"{metadata['system_seconds']:.2f} s system; {metadata['page_faults']:,.0f} page faults",
        f"limits: {metadata['flops'] / 1e9:.0f} GFLOP/s, {metadata['bytes'] / 1e9:.1f} GB/s",
        "",
        f"{'operations':24}{'seconds':>9}{'share':>8}{'calls':>7}{'floor':>9}{'floor / seconds':>17}",
    ]
    step, calls = metadata["step"], metadata["calls"]
    for name, seconds in sorted(metadata["operation_seconds"].items(), key=lambda item: -item[1]):
        seconds, floor = scale * seconds, metadata["floors"].get(name)
        shown = f"{floor:9.3f}{100 * floor / seconds:15.0f} %" if floor else f"{'–':>9}{'–':>17}"
        lines.append(f"{name:24}{seconds:9.3f}{100 * seconds / step:6.0f} %{calls.get(name, 0):7.0f}{shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
