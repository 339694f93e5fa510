"""Measures time and memory as images, batch, resolution, d and the kNN bank grow tenfold.

    python scripts/bench/bench_growth.py --json=growth.json
    python scripts/bench/bench_growth.py --steps=10000     # also tells whether memory grows with the steps

Every setting runs in a process of its own on random images in memory, with a ResNet-10 a quarter as wide as
usual. The base has views of 28 pixels, batch 64, d = 256, 6,000 images and as many in the kNN bank. Every
other setting has one of these five ten times as large (the views by area). Time that is linear in it grows
tenfold.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import time

import bench_harness

BASE = {"images": 6000, "batch": 64, "pixels": 28, "d": 256, "bank": 6000}
GROWN = {"images": 60_000, "batch": 640, "pixels": 89, "d": 2560, "bank": 60_000}
QUERIES = 1000  # images that the kNN classifies


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each setting")
    parser.add_argument("--steps", type=int, default=0, help="length of a long run whose memory is watched")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    settings = {"base": BASE, **{name: {**BASE, name: value} for name, value in GROWN.items()}}
    results = {}
    for name, setting in settings.items():
        print(f"{name}: {setting}", file=sys.stderr)
        results[name] = _in_new_process(_measure, setting, args.threads, args.repeats)
    metadata = bench_harness.machine_metadata(args.threads)
    print(_table(metadata, results))
    if args.steps:
        results["long run"] = _in_new_process(_long_run, args.steps, args.threads)
        shown = ", ".join(f"{mib:.0f} MiB at {step:,}" for step, mib in results["long run"])
        print(f"memory over {args.steps:,} steps: {shown}")
    bench_harness.write_json(args.json, {**metadata, "results": results})
    return 0


def _in_new_process(function, *arguments):  # noqa: ANN001, ANN202
    """Calls a function in a fresh process, so that it has a memory peak of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _components(setting: dict, threads: int):  # noqa: ANN202
    import numpy as np
    import tensorflow as tf

    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig
    from simsiam_tf.data import AUGMENTATIONS, Views, from_arrays
    from simsiam_tf.distributed.workers import Workers
    from simsiam_tf.loop.task import RunComponents
    from simsiam_tf.training import build_run

    bench_harness.set_threads(threads)
    flags = ["--data=digits", "--backbone=resnet10", "--stem=small", "--width=0.25", "--epochs=100000"]
    sizes = [f"--batch_size={setting['batch']}", f"--d={setting['d']}", "--projector_layers=2"]
    config = cli.parse(PretrainConfig, [*flags, *sizes, "--monitor=none", "--strategy=one_device"])
    pixels = setting["pixels"]
    shape = (setting["images"], pixels, pixels, 1)
    source = from_arrays("noise", np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    views = Views(dataclasses.replace(AUGMENTATIONS["grayscale"], size=pixels))
    model = build_run.build_model(config, 1, pixels)
    model.compile(build_run.build_optimizer(config, 10**6, setting["images"]))
    model.optimizer.build(model.learned_variables())
    return config, RunComponents(Workers(tf.distribute.get_strategy()), source, views, model, 10**6)


def _measure(setting: dict, threads: int, repeats: int) -> dict:
    import numpy as np
    import tensorflow as tf

    from simsiam_tf.features import knn_accuracy

    config, components = _components(setting, threads)
    iterator, steps = bench_harness.training_steps(components, config)
    times = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        steps(iterator, tf.constant(1))[0].numpy()
        times.append(time.perf_counter() - began)
    rng = np.random.default_rng(1)
    bank = rng.normal(size=(setting["bank"] + QUERIES, 128)).astype(np.float32)
    labels = rng.integers(0, 10, len(bank))
    knn = []
    for _ in range(3):
        began = time.perf_counter()
        knn_accuracy(bank[QUERIES:], labels[QUERIES:], bank[:QUERIES], labels[:QUERIES])
        knn.append(time.perf_counter() - began)
    memory = bench_harness.peak_mib(os.getpid())
    return {"step": statistics.median(times[3:]), "knn": statistics.median(knn), "peak_mib": memory}


def _long_run(total: int, threads: int) -> list[tuple[int, float]]:
    """(step, MiB) at a tenth of the steps, at half and at the end."""
    import tensorflow as tf

    config, components = _components({**BASE, "pixels": 16}, threads)
    iterator, steps = bench_harness.training_steps(components, config)
    readings, done = [], 0
    for mark in (total // 10, total // 2, total):
        while done < mark:
            count = min(50, mark - done)
            steps(iterator, tf.constant(count))
            done += count
        readings.append((done, bench_harness.current_mib(os.getpid())))
        print(f"step {done:,} of {total:,}: {readings[-1][1]:.0f} MiB", file=sys.stderr)
    return readings


def _table(metadata: dict, results: dict[str, dict]) -> str:
    base = results["base"]
    lines = [
        f"{metadata['cpu']}, {metadata['threads']} threads, {metadata['date']}",
        f"{'':10}{'step s':>9}{'growth':>8}{'kNN s':>9}{'growth':>8}{'peak MiB':>10}",
    ]
    for name, result in results.items():
        label = name if name == "base" else f"{name} ×10"
        lines.append(
            f"{label:12}{result['step']:7.3f}{result['step'] / base['step']:8.1f}{result['knn']:9.3f}"
            f"{result['knn'] / base['knn']:8.1f}{result['peak_mib']:10.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
