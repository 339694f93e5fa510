"""Scores of a frozen backbone by features that are made once: what the commands call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from simsiam_tf.errors import UserError
from simsiam_tf.evaluate import store
from simsiam_tf.evaluate.features import pixels
from simsiam_tf.evaluate.monitor import LARGEST_PIXELS
from simsiam_tf.evaluate.neighbours import knn_accuracy
from simsiam_tf.evaluate.splits import Splits, open_splits
from simsiam_tf.pretrained import Pretrained, open_pretrained


def opened(config: Any) -> tuple[Pretrained, Splits]:
    """The backbone and the labelled images that a `LabelledConfig` names, held against each other."""
    pretrained = open_pretrained(config.weights, config.recipe, config.image_size)
    data = config.data or data_of(pretrained)
    options = {"data_dir": config.data_dir, "on_bad_image": config.on_bad_image}
    splits = open_splits(data, config.test, **options, max_megapixels=config.max_megapixels)
    pretrained.check(splits.train)
    return pretrained, splits


def data_of(pretrained: Pretrained) -> str:
    """What a backbone was pre-trained on. Raises UserError where its card does not say."""
    data = pretrained.card.get("configuration", {}).get("data")
    if not isinstance(data, str):
        raise UserError(f"--data: missing, and nothing beside {pretrained.path} says what it was trained on.")
    return data


def beside(where: str, name: str) -> Path:
    """WORKDIR/name, or FILE.name beside a file of weights."""
    path = Path(where).expanduser()
    return path / name if path.is_dir() else path.with_suffix(f".{name}")


def knn(config: Any) -> dict[str, Any]:
    """kNN accuracy of a backbone's features and, where images are small, of raw pixels.

    config: a `KnnConfig`. Accuracies are in [0, 1], by method and k.
    """
    pretrained, splits = opened(config)
    folder = Path(config.features_dir).expanduser() if config.features_dir else None
    bank, queries = (
        store.stored(pretrained, s, folder, config.batch_size) for s in (splits.train, splits.test)
    )
    labels = splits.train.labels[:], splits.test.labels[:]
    began = time.perf_counter()
    scores = {
        "this backbone": knn_accuracy(bank, labels[0], queries, labels[1], config.ks, config.temperature)
    }
    seconds = time.perf_counter() - began
    if pretrained.recipe.size**2 * pretrained.channels <= LARGEST_PIXELS:
        raw = [pixels(s, pretrained.views) for s in (splits.train, splits.test)]
        scores["raw pixels"] = knn_accuracy(
            raw[0], labels[0], raw[1], labels[1], config.ks, config.temperature
        )
    return {
        "what": "kNN accuracy", "train": splits.train.name, "test": splits.test.name,
        "images": [splits.train.size, splits.test.size], "features": pretrained.features,
        "weights": str(pretrained.path), "sha256": pretrained.sha256, "temperature": config.temperature,
        "accuracy": {name: {f"k = {k}": a for k, a in of.items()} for name, of in scores.items()},
        "seconds of the search": round(seconds, 2),
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """A result as text: a row a method."""
    rows = result["accuracy"]
    columns = list(next(iter(rows.values())))
    train, test = result["images"]
    lines = [
        f"{result['what']}: {test} images of {result['test']}, {train} of {result['train']} vote",
        "",
        "  " + " " * 20 + "".join(f"{c:>10}" for c in columns),
    ]
    lines += [f"  {name:20}" + "".join(f"{of[c]:10.1%}" for c in columns) for name, of in rows.items()]
    return "\n".join(lines) + "\n"
