"""Measures how many images a second become two views, decoded once or read again for every epoch.

    python scripts/bench/bench_decoded.py --pixels=64 --view=32 --json=small.json
    python scripts/bench/bench_decoded.py --data=list:sets/photographs/set.csv --view=64

Without --data, the images are smooth PNGs of one size, every other one with transparent pixels, as icons have
them, and are also kept as they are. "squares" are copies of twice the views' size (--decoded_size).
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path

import bench_harness

COUNT, BATCH = 2048, 256  # images a call; images of a step


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="images, as for pretrain")
    parser.add_argument("--pixels", type=int, default=64, help="side of the images")
    parser.add_argument("--view", type=int, default=32, help="side of the views")
    bench_harness.add_arguments(parser, repeats=5, calls=1, threads=os.cpu_count())
    args = parser.parse_args(argv)
    ways = ["read", "squares"] if args.data else ["read", "squares", "decoded"]
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            pictures(Path(folder), args.pixels)
        spec = args.data or f"folder:{folder}"
        candidates = [
            bench_harness.Candidate(way, functools.partial(_views, spec, args.view, way, args.threads), COUNT)
            for way in ways
        ]
        result = bench_harness.time_candidates(candidates, args.repeats, args.calls, args.threads)
    metadata = {**bench_harness.machine_metadata(args.threads), **vars(args)}
    for way in ways:
        times = f", {result.summary('read', way)} times as many" * (way != "read")
        print(f"{way}: {1 / result.median(way):.0f} images/s as two views of {args.view} pixels{times}")
    bench_harness.write_json(args.json, {**metadata, **result.as_json()})
    return 0


def pictures(folder: Path, side: int) -> None:
    """Writes PNGs of smooth colours."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, [6, 6, 3 + i % 2], np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.png")


def _views(spec: str, size: int, way: str, threads: int) -> bench_harness.TimedCall:
    import dataclasses

    import tensorflow as tf

    from simsiam_tf.data import AUGMENTATIONS, Views, open_source, pipeline
    from simsiam_tf.data.sources.decoded import keep_decoded, keep_squares

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    pipeline.PREFETCHED_STEPS = 0  # no views are made ahead while the other candidate runs
    source = open_source(spec)
    if way == "squares":
        source = keep_squares(source, 2 * size)
    elif way == "decoded":
        source = keep_decoded(source)
    views = Views(dataclasses.replace(AUGMENTATIONS["imagenet"], size=size))
    steps = iter(pipeline.StepBatches(source, views, BATCH).dataset(0, 10**6))

    def call() -> None:
        for _ in range(COUNT // BATCH):
            next(steps)

    return call, {"tensorflow": tf.__version__}


if __name__ == "__main__":
    sys.exit(main())
