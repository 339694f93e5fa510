"""Measures how many squares a second the training batches of `transfer` hold, without a network.

    python scripts/bench/bench_squares.py --threads=1
    python scripts/bench/bench_squares.py --threads=2

`scenes` are of 128 pixels, composed of Fashion-MNIST; `scenes again` are those of later epochs, which are
kept in memory; `coco` cuts squares of 512 pixels, with boxes, from JPEGs of 640×480 (scikit-learn's
photographs).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import tempfile
from pathlib import Path

import bench_harness

BATCH, BATCHES = 16, 4  # squares of a batch; batches a call
IMAGES, BOXES = 64, 7  # JPEGs; boxes of each, as in COCO


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    bench_harness.add_arguments(parser, repeats=5, calls=3, threads=1)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as made:
        write_coco(Path(made))
        candidates = [
            bench_harness.Candidate(name, functools.partial(build, *row, args.threads), BATCH * BATCHES)
            for name, row in {
                "scenes": ("scenes:fashion_mnist", 10**6, 128, "grayscale"),
                "scenes again": ("scenes:fashion_mnist", BATCH * BATCHES, 128, "grayscale"),
                "coco": (f"coco:{made}", 0, 512, "imagenet"),
            }.items()
        ]
        result = bench_harness.time_candidates(candidates, args.repeats, args.calls, args.threads)
    metadata = bench_harness.machine_metadata(args.threads)
    print(f"{metadata['cpu']}, {metadata['threads']} threads, {metadata['date']}")
    for name in result.seconds:
        print(f"{name:14}{1 / result.median(name):8.0f} squares/s")
    print(result.warning())
    bench_harness.write_json(args.json, {**metadata, **result.as_json()})
    return 0


def write_coco(folder: Path) -> None:
    """Writes JPEGs of 640×480 with boxes."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs, boxes = load_sample_images().images, []
    (folder / "train").mkdir()
    for i in range(IMAGES):
        photograph = Image.fromarray(np.roll(photographs[i % 2], 10 * i, axis=1)).resize((640, 480))
        photograph.save(folder / "train" / f"{i}.jpg", quality=90)
        left_top, sides = rng.uniform(0, 300, (BOXES, 2)), rng.uniform(10, 150, (BOXES, 2))
        boxes += [{"image_id": i, "category_id": 1, "bbox": box} for box in np.c_[left_top, sides].tolist()]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(IMAGES)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "object"}]}
    (folder / "train.json").write_text(json.dumps(content))


def build(spec: str, scenes: int, side: int, augmentation: str, threads: int) -> bench_harness.TimedCall:
    import tensorflow as tf

    from simsiam_tf.data import AUGMENTATIONS, Views
    from simsiam_tf.dense_tasks import square_batches
    from simsiam_tf.dense_tasks.framing import Framing
    from simsiam_tf.dense_tasks.open_set import open_annotated

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # No squares are made ahead while other candidates run.
    square_batches.PARALLEL, square_batches.PREFETCHED = (threads if threads > 1 else None), 0
    images = open_annotated(spec, "train", "detection", scenes=scenes, side=side)
    rule = dataclasses.replace(AUGMENTATIONS[augmentation], size=side)
    framing = Framing(side, (0.8, 1.25), channels=len(rule.mean))
    batches = square_batches.TrainingBatches(
        images, framing, Views(rule, count=1), False, BATCH, 0, (0, BATCH)
    )
    iterator = iter(batches.dataset(0, 10**6))

    def call() -> None:
        for _ in range(BATCHES):
            next(iterator)

    return call, {"tensorflow": tf.__version__}


if __name__ == "__main__":
    sys.exit(main())
