"""Measures on a labelled set what finishes the features of a trained backbone best.

    bash scripts/sets.sh emoji sets/emoji
    python -m simsiam_tf.pretrain --flagfile=flags/folder.cfg --data=list:sets/emoji/set.csv \\
        --workdir=runs/emoji
    python scripts/bench/finishing.py runs/emoji sets/emoji

Each row of the table changes one thing: how the features are whitened, the layers that they are read from,
the size of the images, whether the features of an image and its mirror image are averaged. "Quarters" are
means over the quarters of a map instead of over all of it. The last row has the best of each. Whitening is
measured on the rows of the set that pre-training sees. Questions as in docs/sets.md; of a large set a sample
is asked, in which objects keep all their pictures where there are at least 1,000 of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package and scripts

import set_answers  # noqa: E402

from scripts.sets.set_file import Picture, read_set  # noqa: E402
from simsiam_tf.command_line import cli  # noqa: E402
from simsiam_tf.runtime.errors import UserError  # noqa: E402

SHRINKAGES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
SIZES = (1.0, 4 / 3, 1.5, 2.0)  # of the size in training
FEATURES = "features"  # the layer that a backbone ends with
MANY_OBJECTS = 1000
ANSWERS = ("category", "pair")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How features are read.

    whitening: "plain", "centred", or a shrinkage. layer: name, or two names with " and " between them. size:
    factor of the images' size in training.
    """

    whitening: str | float = 0.1
    layer: str = FEATURES
    size: float = 1.0
    mirrored: bool = False

    def __str__(self) -> str:
        whitening = self.whitening
        if isinstance(whitening, float):
            whitening = f"whitened, shrinkage {whitening:g}"
        mirrored = ", averaged with the mirror image" * self.mirrored
        return f"{whitening}, {self.layer}, size × {self.size:.2f}{mirrored}"


def sample(rows: Sequence[Picture], count: int, seed: int) -> list[Picture]:
    """About `count` pictures of a set; where it has many objects, all pictures of some of them."""
    by_object = len({row.object for row in rows}) > MANY_OBJECTS
    keys = [row.object or row.path if by_object else row.path for row in rows]
    names, counts = np.unique(keys, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    kept = set(names[order[np.cumsum(counts[order]) <= count]])
    return [row for row, key in zip(rows, keys, strict=True) if key in kept]


def score(extractor: Extractor, reading: Reading, rows: Sequence[Picture]) -> dict[str, float]:
    """{"category": …, "pair": …} in %, those that the set asks."""
    from simsiam_tf.evaluate.finishing import fit_whitening

    features, seen = extractor(reading), np.array([row.split != "test" for row in rows])
    if reading.whitening == "centred":
        features = features - features[seen].mean(axis=0)
    elif isinstance(reading.whitening, float):
        fitted = fit_whitening(features[seen], reading.whitening)
        features = fitted(features) if fitted else features
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    found = set_answers.answers(unit.astype(np.float32), rows)
    return {name: 100 * found[name] for name in ANSWERS if name in found}


class Extractor:
    """Features of a set's pictures by every layer of a backbone, for each size and orientation.

    workdir: a finished pre-training. folder: the set.
    """

    def __init__(self, workdir: str, folder: Path, rows: Sequence[Picture]) -> None:
        import keras

        from simsiam_tf.data import open_source
        from simsiam_tf.pretrained import backbone_file
        from simsiam_tf.pretrained.pretrained_backbone import open_pretrained

        self.pretrained = open_pretrained(workdir, finished=False)
        backbone, data = self.pretrained.backbone, f"folder:{folder}"
        self.source = open_source(data, **self.pretrained.options_for(data, {}))
        names: Any = vars(self.source)["names"]
        place = {name: i for i, name in enumerate(names)}
        self.ids = np.array([place[row.path] for row in rows])
        stages = {}
        for layer in backbone.layers:
            match = re.fullmatch(r"(stage\d)_block\d+_relu", layer.name)
            if match:
                stages[match[1]] = layer.output  # of the last block
        maps = dict([*stages.items()][-2:-1])
        pool = backbone.layers[-1]
        if isinstance(pool, keras.layers.GlobalAveragePooling2D):
            maps[FEATURES] = pool.input
        outputs = {FEATURES: backbone.output, **maps}
        projector = backbone_file.load_beside(workdir, "projector")
        if projector is not None:
            outputs["projector"] = projector(backbone.output)
        self.network = keras.Model(backbone.inputs, outputs)
        self.kept: dict[tuple[float, bool], dict[str, np.ndarray]] = {}

    def __call__(self, reading: Reading) -> np.ndarray:
        """Features [N, F] of all pictures, not yet whitened."""
        both = [self.layers(reading.size, mirrored) for mirrored in (False, True)[: 1 + reading.mirrored]]
        return _joined({name: np.mean([f[name] for f in both], axis=0) for name in both[0]}, reading.layer)

    def layers(self, factor: float, mirrored: bool) -> dict[str, np.ndarray]:
        """Layer → its features [N, F], computed once."""
        from simsiam_tf.data import pipeline

        if (factor, mirrored) not in self.kept:
            encode, views = self._encoder(), self._views(factor)
            batches = pipeline.evaluation_views(self.source, views, self.ids)
            blocks = [encode(x[:, :, ::-1] if mirrored else x) for x in batches]
            self.kept[factor, mirrored] = {
                name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]
            }
        return self.kept[factor, mirrored]

    def _views(self, factor: float) -> Any:
        from simsiam_tf.data import Views

        augmentation = self.pretrained.augmentation
        size = max(4, round(augmentation.size * factor))
        return Views(dataclasses.replace(augmentation, size=size), count=1)

    def _encoder(self) -> Any:
        """Normalised images → {layer: features}."""
        import tensorflow as tf

        def pooled(x: Any) -> dict[str, Any]:
            features = {}
            for name, values in self.network(x, training=False).items():
                values = tf.cast(values, tf.float32)
                if len(values.shape) == 4:
                    quarters = tf.image.resize(values, (2, 2), "area")
                    features[f"quarters of {name}"] = tf.reshape(quarters, (len(x), 4 * values.shape[-1]))
                    values = tf.reduce_mean(values, axis=(1, 2))
                features[name] = values
            return features

        return lambda x: {name: f.numpy() for name, f in pooled(x).items()}


def _joined(features: dict[str, np.ndarray], layer: str) -> np.ndarray:
    """The features of a layer, or of several side by side, each with the same mean standard deviation."""
    parts = [features[name] for name in layer.split(" and ")]
    if len(parts) > 1:
        parts = [part / max(part.std(axis=0).mean(), 1e-12) for part in parts]
    return np.concatenate(parts, axis=1)


def measure(extractor: Extractor, rows: Sequence[Picture], sizes: Sequence[float]) -> list[dict]:
    """The rows of the table: each a reading, and its answers."""
    from simsiam_tf.evaluate.finishing import default_read_size

    table: list[dict] = []

    def best(readings: Sequence[Reading]) -> Reading:
        """Adds rows; returns the reading of the highest sum of answers."""
        for reading in readings:
            if not any(row["reading"] == reading for row in table):
                table.append({"reading": reading, **score(extractor, reading, rows)})
                print(_line(table[-1]), flush=True)
        found = [next(row for row in table if row["reading"] == reading) for reading in readings]
        return max(found, key=lambda row: sum(row.get(name, 0) for name in ANSWERS))["reading"]

    names = [*extractor.layers(1.0, False)]
    names += [f"{q}stage3 and {q}{FEATURES}" for q in ("", "quarters of ") if f"{q}stage3" in names]
    whitening = best([Reading(w) for w in ("plain", "centred", *SHRINKAGES)]).whitening
    layer = best([Reading(layer=name) for name in (FEATURES, *names)]).layer
    size = best([Reading(size=size) for size in sizes]).size
    mirrored = best([Reading(), Reading(mirrored=True)]).mirrored
    print("as exported:")
    trained = extractor.pretrained.augmentation.size
    best([Reading(layer=names[-1], size=default_read_size(trained) / trained)])
    print("the best of each:")
    best([Reading(whitening, layer, size, mirrored)])
    return table


def _line(row: dict) -> str:
    answers = "".join(f"{row[name]:10.2f}" for name in ANSWERS if name in row)
    return f"  {row['reading']!s:100}{answers}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workdir", help="a finished pre-training")
    parser.add_argument("folder", type=Path, help="a set that scripts/sets.sh has made")
    parser.add_argument("--images", type=int, default=4000, help="pictures to ask, at most")
    parser.add_argument("--seed", type=int, default=0, help="seed of their choice")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    with cli.heavy_imports():
        import simsiam_tf.features  # noqa: F401
    try:
        rows = sample(read_set(args.folder), args.images, args.seed)
        extractor = Extractor(args.workdir, args.folder, rows)
    except (UserError, OSError, ValueError) as error:
        print(f"finishing.py: {error}", file=sys.stderr)
        return 2
    sizes = SIZES if extractor.pretrained.backbone.input_shape[1] is None else (1.0,)
    asked = [name for name in ANSWERS if name in score(extractor, Reading("plain"), rows)]
    print(f"{args.folder.resolve().name}: {len(rows):,} pictures, {args.workdir}; accuracies in %")
    print(f"  {'':100}" + "".join(f"{name:>10}" for name in asked))
    table = measure(extractor, rows, sizes)
    if args.json:
        import bench_harness

        rows_json = [{**row, "reading": dataclasses.asdict(row["reading"])} for row in table]
        result = {"set": args.folder.resolve().name, "pictures": len(rows), "workdir": args.workdir}
        bench_harness.write_json(args.json, {**result, "rows": rows_json})
    return 0


if __name__ == "__main__":
    sys.exit(main())
