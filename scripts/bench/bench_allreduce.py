"""Times an all-reduce between workers on this machine, over gRPC as in TensorFlow's CPU ring.

    python scripts/bench/bench_allreduce.py --workers=2 --json=allreduce.json

Every worker is a process of its own. They talk over the loopback, so no network is measured. A small
vector gives the latency of a hop, a vector as large as ResNet-50's gradient the bandwidth. The defaults of
`scaling.py` for gRPC were measured so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import bench_harness

WAIT_SECONDS = 300  # for the workers' results
SMALL, LARGE = 1024, 38_203_456  # floats: a BN layer's statistics; the gradient of ResNet-50 with heads


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    results = run_workers(args.workers, measure, args.floats, args.calls, args.repeats)
    metadata = {**bench_harness.machine_metadata(os.cpu_count() or 1), "workers": args.workers}
    own = sum(each["own"] for each in results)
    others = (results[0]["busy"] - own) / results[0]["wall"]
    rows = [_row(floats, seconds, args.workers) for floats, seconds in results[0]["seconds"].items()]
    print(_table(metadata, rows, others))
    bench_harness.write_json(args.json, {**metadata, "rows": rows, "cores_of_others": others})
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="number of workers")
    parser.add_argument("--floats", type=int, nargs="+", default=[SMALL, LARGE], help="lengths of vectors")
    parser.add_argument("--calls", type=int, default=50, help="all-reduces of a call, below 10^6 floats")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    return parser.parse_args(argv)


def run_workers(count: int, function: Callable, *arguments: Any) -> list[Any]:
    """Calls function(*arguments) in each of `count` workers of one TF_CONFIG; returns their results."""
    hosts = _free_addresses(count)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for index in range(count):
            ours, theirs = context.Pipe()
            task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
            process = context.Process(
                target=_serve, args=(theirs, json.dumps(task), function, arguments), daemon=True
            )
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        return [_receive(pipe, index) for index, pipe in enumerate(pipes)]
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(10)
            process.terminate()


def _free_addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return hosts


def _receive(pipe: Connection, index: int) -> Any:
    if not pipe.poll(WAIT_SECONDS):
        raise SystemExit(f"Worker {index} did not answer within {WAIT_SECONDS} s.")
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"Worker {index} ended early; its message is above.") from None


def _serve(pipe: Connection, task: str, function: Callable, arguments: tuple) -> None:
    os.environ.update(TF_CONFIG=task, CUDA_VISIBLE_DEVICES="")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    pipe.send(function(*arguments))
    pipe.poll(WAIT_SECONDS)  # until the parent has all answers and closes its end


def measure(floats: list[int], calls: int, repeats: int) -> dict:
    """Runs in a worker: seconds of an all-reduce by length, CPU seconds of the machine and of this worker."""
    from simsiam_tf.distributed import strategies

    strategy = strategies.strategy_by_name("multi_worker")
    began, busy, own = time.perf_counter(), bench_harness.busy_seconds(), time.process_time()
    seconds = {size: _timed(strategy, size, calls if size < 10**6 else 1, repeats) for size in floats}
    return {
        "seconds": seconds, "busy": bench_harness.busy_seconds() - busy,
        "own": time.process_time() - own, "wall": time.perf_counter() - began,
    }  # fmt: skip


def _timed(strategy, floats: int, calls: int, repeats: int) -> list[float]:  # noqa: ANN001
    import tensorflow as tf

    def reduced(x: tf.Tensor) -> tf.Tensor:
        x = tf.identity(x)
        for _ in range(calls):  # each takes the result of the one before, as BN layers do
            x = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x) / 2
        return x

    @tf.function(autograph=False)
    def call(x: tf.Tensor) -> tf.Tensor:
        return strategy.run(reduced, args=(x,))[:1]

    x, times = tf.ones([floats]), []
    for _ in range(repeats + bench_harness.WARM_UP):
        began = time.perf_counter()
        call(x).numpy()
        times.append((time.perf_counter() - began) / calls)
    return times[bench_harness.WARM_UP :]


def _row(floats: int, seconds: list[float], workers: int) -> dict:
    """Metrics of one length, n workers. hop: time / (2(n − 1)). bandwidth: 2(n − 1)/n · bytes / time."""
    median, hops = statistics.median(seconds), 2 * (workers - 1)
    return {
        "floats": floats, "seconds": median, "least": min(seconds), "most": max(seconds),
        "hop": median / hops, "bandwidth": hops / workers * 4 * floats / median,
    }  # fmt: skip


def _table(metadata: dict, rows: list[dict], others: float) -> str:
    lines = [
        f"{metadata['cpu']}, {metadata['workers']} workers, {metadata['date']}; "
        f"others took {others:.1f} cores",
        f"{'floats':>12}{'ms':>10}{'range':>18}{'ms a hop':>10}{'GB/s':>8}",
    ]
    for row in rows:
        spread = f"{1e3 * row['least']:.2f}–{1e3 * row['most']:.2f}"
        lines.append(
            f"{row['floats']:>12,}{1e3 * row['seconds']:>10.2f}{spread:>18}{1e3 * row['hop']:>10.2f}"
            f"{row['bandwidth'] / 1e9:>8.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
