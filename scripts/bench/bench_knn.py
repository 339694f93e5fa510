"""Measures time and memory of the exact search for neighbours; extrapolates the time to ImageNet.

    python scripts/bench/bench_knn.py
    python scripts/bench/bench_knn.py --bank=1281167 --queries=50000 --k=200  # ImageNet: 10 GiB of disk

The bank and the queries are random features in memory-mapped files, as those of `simsiam_tf.knn_eval` are.
The times for all of ImageNet, and for the neighbours of each of its training images, are extrapolated by the
number of operations, 2 · bank · queries · width. `--device=gpu` searches by TensorFlow, else NumPy does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import bench_harness
import numpy as np

IMAGENET = (1_281_167, 50_000, 2048)  # training images, validation images, features of a ResNet-50


def features(path: Path, rows: int, width: int) -> np.ndarray:
    """Random features [rows, width] in a file."""
    rng = np.random.default_rng(rows)
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    for start in range(0, rows, 8192):
        array[start : start + 8192] = rng.random((min(8192, rows - start), width), np.float32) - 0.5
    array.flush()
    return np.load(path, mmap_mode="r")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bank", type=int, default=131_072, help="number of features in the bank")
    parser.add_argument("--queries", type=int, default=2_000, help="number of features to find neighbours of")
    parser.add_argument("--width", type=int, default=IMAGENET[2], help="numbers in a feature")
    parser.add_argument("--k", type=int, default=200, help="neighbours")
    parser.add_argument("--repeats", type=int, default=3, help="searches, of which the median counts")
    parser.add_argument("--folder", help="folder for the features; by default that of temporary files")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    if args.device == "gpu":
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        bench_harness.check_gpu(args.device)  # loads TensorFlow, which `nearest` uses where it is loaded

    from simsiam_tf.features import nearest

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        bank = features(Path(folder) / "bank.npy", args.bank, args.width)
        queries = features(Path(folder) / "queries.npy", args.queries, args.width)
        nearest(bank[:256], queries[:256], args.k)  # builds the graph, outside the timed searches
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for _ in range(args.repeats):
            began = time.perf_counter()
            nearest(bank, queries, args.k)
            seconds.append(time.perf_counter() - began)
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    took = float(np.median(seconds))
    products = 2.0 * args.bank * args.queries * args.width
    imagenet = 2.0 * IMAGENET[0] * IMAGENET[1] * IMAGENET[2]
    all_pairs = 2.0 * IMAGENET[0] ** 2 * IMAGENET[2]
    metadata = {
        "machine": bench_harness.machine_metadata(multiprocessing.cpu_count()),
        "bank": args.bank, "queries": args.queries,
        "features": args.width, "k": args.k, "seconds": took, "operations": products,
        "operations a second": products / took, "queries a second": args.queries / took,
        "MiB grown": growth / 1024, "seconds of ImageNet": imagenet / products * took,
        "seconds of all pairs": all_pairs / products * took,
    }  # fmt: skip
    print(f"{args.queries} queries in {args.bank} features of {args.width}, k = {args.k}: {took:.1f} s")
    print(f"  {products:.3g} operations, {products / took / 1e9:.0f} GFLOP/s")
    print(f"  peak memory grew by {growth / 1024:.0f} MiB; the bank has {args.bank * args.width / 2**18:.0f}")
    print(
        f"  ImageNet ({IMAGENET[1]:,} queries in {IMAGENET[0]:,} features of {IMAGENET[2]}): "
        f"{imagenet:.3g} operations, {imagenet / products * took / 60:.0f} min at this rate"
    )
    print(
        f"  all pairs of its training images: {all_pairs:.3g} operations, "
        f"{all_pairs / products * took / 3600:.1f} h at this rate"
    )
    if args.json:
        bench_harness.write_json(args.json, metadata)
    return 0


if __name__ == "__main__":
    sys.exit(main())
