"""Measures how many JPEGs a second this package and torchvision turn into two views, on one core or more.

    python scripts/bench/bench_views.py --json=views.json
    python scripts/bench/bench_views.py --images=/my/photos
    python scripts/bench/bench_views.py --threads=1,2,4    # scaling, and what larger hosts can feed

Both programs read the files, decode them, and make two normalised float32 views of 224 pixels with the
paper's augmentation. Two stages are timed alone: `host stage` decodes, crops and resizes (the host's share
with --augment_on=device); `decoder` reads and decodes each file once. Without --images, the files are
500×375 cuts of scikit-learn's two photographs.

Several numbers of threads, each on as many cores, are measured without torchvision. What hosts of 8, 16 and
64 cores can feed is then computed by `host_model.py`, from the rate of the fewest threads and from the stages
that run in one thread or hold Python's lock.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_harness
import host_model

from simsiam_tf.runtime import cores

COUNT, BATCH = 128, 32  # images a call; images a batch of our pipeline
AIMS = {"ours": 1.5, "host stage": 2.5}  # least rates, as multiples of torchvision's


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", metavar="FOLDER", help="folder of at least 32 JPEGs")
    bench_harness.add_arguments(parser, repeats=7, calls=3, threads=1, type=thread_counts)
    args = parser.parse_args(argv)
    several = len(args.threads) > 1
    hint = "" if several else bench_harness.install_hint("torch", "torchvision", "PIL")
    if hint:
        print(hint, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as made:
        folder = args.images or photographs(Path(made))
        names = sorted(str(p) for p in Path(folder).rglob("*.[jJ][pP]*[gG]"))
        if len(names) < BATCH:
            print(f"--images={folder}: {len(names)} JPEGs; at least {BATCH} are needed.", file=sys.stderr)
            return 2
        names = names[: len(names) // BATCH * BATCH][:COUNT]
        kib = statistics.median(Path(n).stat().st_size for n in names) / 1024
        metadata = {"images": len(names), "median_kib": round(kib, 1)}
        if several:
            return _measure_scaling(args, folder, names, metadata)
        (threads,) = args.threads
        result = _time(CANDIDATES, folder, names, threads, args)
    metadata |= bench_harness.machine_metadata(threads)
    metadata |= {k: v for side in result.metadata.values() for k, v in side.items()}
    print(_table(metadata, result))
    bench_harness.write_json(args.json, {**metadata, **result.as_json()})
    return 0


def thread_counts(text: str) -> list[int]:
    """Numbers of threads, such as "1,2,4", in rising order; an argparse type."""
    usable = cores.usable_cores()
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 1,2,4") from None
    if not 1 <= counts[0] <= counts[-1] <= usable:
        raise argparse.ArgumentTypeError(f"{text}: from 1 to {usable}, the cores that this process may use")
    return counts


def _time(
    builds: dict[str, Callable], folder: str, names: list[str], threads: int, args: argparse.Namespace
) -> bench_harness.Timings:
    """Times candidates on so many cores; seconds are those of an image."""
    candidates = [
        bench_harness.Candidate(name, functools.partial(build, folder, names, threads), len(names))
        for name, build in builds.items()
    ]
    return bench_harness.time_candidates(candidates, args.repeats, args.calls, threads, f"{threads} threads")


def _measure_scaling(args: argparse.Namespace, folder: str, names: list[str], metadata: dict) -> int:
    results = {n: _time(STAGES, folder, names, n, args) for n in args.threads}
    alone = _time(SERIAL, folder, names, 1, args)
    rates = {stage: {n: 1 / result.median(stage) for n, result in results.items()} for stage in STAGES}
    serial = {name: alone.median(name) for name in SERIAL}
    fewest = min(args.threads)
    core_rates = {stage: rates[stage][fewest] / fewest for stage in STAGES}
    of_stage = {
        stage: {name: seconds for name, seconds in serial.items() if name in SERIAL_STAGES[stage]}
        for stage in STAGES
    }
    metadata |= bench_harness.machine_metadata(max(args.threads))
    lines = [
        f"{metadata['images']} JPEGs, median {metadata['median_kib']} KiB → two views of 224 pixels, "
        f"{metadata['cpu']}, {metadata['date']}; images a second:",
        *host_model.scaling_table(rates),
        "",
        "Stages that run in one thread, or hold Python's lock for at most so long (on one core):",
        *(f"{name:14}{1e6 * s:8.1f} µs an image, {1 / s:10,.0f} images/s" for name, s in serial.items()),
        "",
        *host_model.hosts_table(core_rates, of_stage),
    ]
    print("\n".join(lines + [r.warning() for r in [*results.values(), alone] if r.disturbed][:1]))
    by_threads = {str(n): result.as_json() for n, result in results.items()}
    bench_harness.write_json(args.json, {**metadata, "threads": by_threads, "serial": alone.as_json()})
    return 0


def photographs(folder: Path, count: int = COUNT) -> str:
    """Writes JPEGs of 500×375, cuts of scikit-learn's two photographs; returns the folder."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    for i in range(count):
        photograph = photographs[i % 2]
        top, left = (rng.integers(0, n - m + 1) for n, m in zip(photograph.shape, (375, 500), strict=False))
        cut = photograph[top : top + 375, left : left + 500]
        Image.fromarray(cut[:, ::-1] if rng.random() < 0.5 else cut).save(folder / f"{i:03d}.jpg", quality=75)
    return str(folder)


def _ours(folder: str, names: list[str], threads: int, all_stages: bool = True) -> bench_harness.TimedCall:
    import tensorflow as tf

    from simsiam_tf.data import AUGMENTATIONS, Views, open_source, pipeline

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # No views are made ahead while other candidates run.
    pipeline.PARALLEL, pipeline.PREFETCHED_STEPS = (threads if threads > 1 else None), 0
    source, views = open_source(f"folder:{folder}"), Views(AUGMENTATIONS["imagenet"])
    batches = pipeline.StepBatches(source, views, BATCH, augment_on_host=all_stages)
    dataset = batches.dataset(0, 10**6)
    return _take_elements(dataset, len(names) // BATCH), {"tensorflow": tf.__version__}


def _decoder(folder: str, names: list[str], threads: int) -> bench_harness.TimedCall:
    del folder
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)

    def decoded(name):  # noqa: ANN001, ANN202
        return tf.shape(tf.io.decode_jpeg(tf.io.read_file(name), channels=3))

    dataset = tf.data.Dataset.from_tensor_slices(names).repeat()
    dataset = dataset.map(decoded, threads if threads > 1 else None)
    return _take_elements(dataset.batch(BATCH), len(names) // BATCH), {}


def _joining(folder: str, names: list[str], threads: int, all_stages: bool) -> bench_harness.TimedCall:
    """The batching of images and pieces that are ready: one thread does it on any host."""
    del threads
    import tensorflow as tf

    from simsiam_tf.data import AUGMENTATIONS, Views, open_source, pipeline

    pipeline.PREFETCHED_STEPS = 0
    source, views = open_source(f"folder:{folder}"), Views(AUGMENTATIONS["imagenet"])
    batches = pipeline.StepBatches(source, views, BATCH, augment_on_host=all_stages)
    size = views.augmentation.size
    crops = (tf.zeros([size, size, 3], tf.uint8),) * 2
    rows = {"crops": crops, "draws": tf.zeros([views.draws]), "index": tf.constant(0, tf.int64)}
    pieces = tf.data.Dataset.from_tensors(rows).repeat().batch(batches.rows_per_piece, drop_remainder=True)
    if all_stages:  # float32, made in place of the crops by the last parallel stage
        piece = (tf.zeros([batches.rows_per_piece, size, size, 3]),) * 2
        pieces = pieces.map(lambda rows: {"views": piece, "index": rows["index"]})
    return _take_elements(batches.joined(pieces), len(names) // BATCH), {}


def _python_reads(folder: str, names: list[str], threads: int) -> bench_harness.TimedCall:
    """Reading and checking a file as a run does: in Python, so that threads wait for each other."""
    del threads
    import tensorflow as tf

    from simsiam_tf.data import open_source

    source: Any = open_source(f"folder:{folder}", run=Path(folder))
    dataset = tf.data.Dataset.range(len(names)).repeat().map(lambda i: tf.strings.length(source.read(i)))
    return _take_elements(dataset.batch(BATCH), len(names) // BATCH), {}


def _take_elements(dataset, count: int) -> Callable[[], None]:  # noqa: ANN001
    """A call that takes `count` elements of one endless iterator."""
    iterator = iter(dataset)

    def call() -> None:
        for _ in range(count):
            next(iterator)

    return call


def _torchvision(folder: str, names: list[str], threads: int) -> bench_harness.TimedCall:
    del folder
    import PIL
    import torch
    from reference_torch import torchvision_views

    torch.set_num_threads(threads)
    transform = torchvision_views.transform()

    def call() -> None:
        for name in names:
            image = torchvision_views.load(name)
            transform(image), transform(image)

    return call, {"torch": torch.__version__, "pillow": PIL.__version__}


STAGES = {"whole views": _ours, "host stage": functools.partial(_ours, all_stages=False)}
CANDIDATES = {
    "torchvision": _torchvision,
    "ours": STAGES["whole views"],
    "host stage": STAGES["host stage"],
    "decoder": _decoder,
}
SERIAL = {
    "joining crops": functools.partial(_joining, all_stages=False),
    "joining views": functools.partial(_joining, all_stages=True),
    "Python reads": _python_reads,
}
SERIAL_STAGES = {
    "whole views": ("joining crops", "joining views", "Python reads"),
    "host stage": ("joining crops", "Python reads"),
}


def _table(metadata: dict, result: bench_harness.Timings) -> str:
    versions = ", ".join(f"{k} {metadata[k]}" for k in ("tensorflow", "torch", "pillow"))
    lines = [
        f"{metadata['images']} JPEGs, median {metadata['median_kib']} KiB → two views of 224 pixels, "
        f"{metadata['date']}",
        f"{metadata['cpu']}, {metadata['threads']} threads; {versions}",
        f"medians of {len(result.seconds['ours'])} alternations:",
        "",
        f"{'':14}{'images/s':>10}   {'× torchvision (range)':26}{'aim':>6}{'of decoder':>12}",
    ]
    for side in result.seconds:
        aim = f"{AIMS[side]:.1f}" if side in AIMS else ""
        times = result.summary("torchvision", side) if side != "torchvision" else "1"
        share = result.median("decoder") / result.median(side)
        lines.append(f"{side:14}{1 / result.median(side):10.0f}   {times:26}{aim:>6}{share:12.0%}")
    lines += [result.warning()] if result.disturbed else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
