"""Scores of a frozen backbone by features that are made once: what the commands call."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf import config as configs
from simsiam_tf.evaluate.knn_monitor import LARGEST_PIXELS
from simsiam_tf.evaluate.label_splits import Splits, balanced, open_splits
from simsiam_tf.evaluate.linear_probe import logistic_probe, sgd_probe
from simsiam_tf.features import store
from simsiam_tf.features.extraction import pixels
from simsiam_tf.features.knn import knn_accuracy, leave_one_out
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text, check_writable
from simsiam_tf.runtime.errors import UserError

CLASSIFIERS = {
    "logistic": "logistic regression", "lars": "linear classifier by LARS", "sgd": "linear classifier by SGD",
}  # fmt: skip

ASKED = 10_000  # training images, at most, by which k is chosen


def opened(config: Any, out: Path | None = None) -> tuple[Pretrained, Splits]:
    """The backbone and the labelled images that a `LabelledConfig` names, held against each other.

    out: file for what comes of it; UserError where it could not be written.
    """
    pretrained = open_pretrained(config.weights, config.augmentation, config.image_size)
    if out is not None:
        check_writable(out)
    return pretrained, splits_for(config, pretrained)


def splits_for(config: Any, pretrained: Pretrained) -> Splits:
    """The labelled images that a `LabelledConfig` names, of as many channels as the backbone takes."""
    data = config.data or data_of(pretrained)
    options = {"data_dir": config.data_dir, "on_bad_image": config.on_bad_image}
    splits = open_splits(data, config.test, **options, max_megapixels=config.max_megapixels)
    pretrained.check_channels(splits.train)
    return splits


def data_of(pretrained: Pretrained) -> str:
    """What a backbone was pre-trained on. Raises UserError where its card does not say, or not from where."""
    data = pretrained.card.get("configuration", {}).get("data")
    relative = configs.is_folder(data) and not Path(data.removeprefix(configs.FOLDER)).is_absolute()
    if relative and not Path(data.removeprefix(configs.FOLDER)).is_dir():
        raise UserError(
            f"`data`: missing. {pretrained.path} was trained on {data}, a path that is relative to another "
            "working folder. Pass data=folder:/path/to/images."
        )
    if not isinstance(data, str):
        raise UserError(
            f"`data`: missing, and nothing beside {pretrained.path} says what it was trained on. "
            "Pass data=folder:/path/to/images, or a set's name."
        )
    return data


def beside(where: str, name: str) -> Path:
    """WORKDIR/name, or FILE.name beside a file of weights."""
    path = Path(where).expanduser()
    return path / name if path.is_dir() else path.with_suffix(f".{name}")


def knn(config: Any, out: Path | None = None) -> dict[str, Any]:
    """kNN accuracy of a backbone's features and, where images are small, of raw pixels.

    config: a `KnnConfig`. Accuracies are in [0, 1], by method and k, and for the k that training images
    choose. out: as in `opened`.
    """
    pretrained, splits = opened(config, out)
    rows = {"this backbone": _stored(config, pretrained, splits)}
    if config.raw_pixels and _small(pretrained):
        rows["raw pixels"] = tuple(pixels(s, pretrained.views) for s in (splits.train, splits.test))
    labels = splits.train.labels[:], splits.test.labels[:]
    began, accuracy, chosen = time.perf_counter(), {}, {}
    for name, (bank, queries) in rows.items():
        found = knn_accuracy(bank, labels[0], queries, labels[1], config.ks, config.temperature)
        accuracy[name] = {f"k = {k}": a for k, a in found.items()}
        if len(found) > 1:
            chosen[name] = _chosen(bank, labels[0], found, config.temperature)
            accuracy[name]["chosen k"] = chosen[name]["test"]
    return {
        "what": "kNN accuracy", **_about(pretrained, splits, splits.train.size),
        "temperature": config.temperature, "accuracy": accuracy, "chosen": chosen,
        "seconds of the search": round(time.perf_counter() - began, 2),
    }  # fmt: skip


def _chosen(bank: np.ndarray, labels: np.ndarray, test: dict[int, float], temperature: float) -> dict:
    """The k that is best for training images, for each of which the others vote. test: accuracies by k."""
    share = min(1.0, ASKED / len(labels))
    found = leave_one_out(bank, labels, balanced(labels, share), tuple(test), temperature)
    best = max(found, key=found.get)
    return {"k": best, "training images": found, "test": test[best]}


def probe(config: Any, out: Path | None = None) -> dict[str, Any]:
    """A linear classifier on a backbone's features and, where images are small, on raw pixels.

    config: a `ProbeConfig`. Accuracies are in [0, 1], by method. out: as in `opened`.
    """
    pretrained, splits = opened(config, out)
    labels = splits.train.labels[:], splits.test.labels[:]
    ids = balanced(labels[0], config.labels, config.seed)
    rows = {"this backbone": _stored(config, pretrained, splits)}
    if config.raw_pixels and _small(pretrained):
        rows["raw pixels"] = tuple(pixels(s, pretrained.views) for s in (splits.train, splits.test))
    if config.classifier == "logistic":
        fit, more = logistic_probe, (config.values,)
    else:
        fit, more = sgd_probe, (config.classifier, config.values or None, config.epochs)
    found = {
        name: fit(
            train if len(ids) == len(train) else train[ids],
            labels[0][ids],
            test,
            labels[1],
            *more,
            config.seed,
        )
        for name, (train, test) in rows.items()
    }
    return {
        "what": CLASSIFIERS[config.classifier], **_about(pretrained, splits, len(ids)),
        "accuracy": {n: {"held out": max(p.validation.values()), "test": p.test} for n, p in found.items()},
        "sweep": {name: dataclasses.asdict(p) for name, p in found.items()}, "seed": config.seed,
    }  # fmt: skip


def _stored(config: Any, pretrained: Pretrained, splits: Splits) -> tuple[np.ndarray, ...]:
    """Features of both splits."""
    folder = Path(config.features_dir).expanduser() if config.features_dir else None
    both = (splits.train, splits.test)
    return tuple(store.stored(pretrained, s, folder, config.batch_size) for s in both)


def _small(pretrained: Pretrained) -> bool:
    """Whether images are small enough for raw pixels to be a baseline."""
    return pretrained.augmentation.size**2 * pretrained.channels <= LARGEST_PIXELS


def _about(pretrained: Pretrained, splits: Splits, learned_from: int) -> dict[str, Any]:
    return {
        "train": splits.train.name, "test": splits.test.name, "images": [learned_from, splits.test.size],
        "features": pretrained.features, "weights": str(pretrained.path), "sha256": pretrained.sha256,
    }  # fmt: skip


def write(result: dict[str, Any], path: Path) -> None:
    """Writes a result as JSON and says where. Raises UserError where it cannot be."""
    try:
        atomic_write_text(path, json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror}).") from error
    print(f"  written to {path}")


def table(result: dict[str, Any]) -> str:
    """A result as text: a row a method."""
    rows = result["accuracy"]
    columns = list(next(iter(rows.values())))
    train, test = result["images"]
    lines = [
        f"{result['what']}: {test} images of {result['test']}, by {train} of {result['train']}",
        "",
        "  " + " " * 20 + "".join(f"{c:>10}" for c in columns),
    ]
    lines += [f"  {name:20}" + "".join(f"{of[c]:10.1%}" for c in columns) for name, of in rows.items()]
    if result.get("chosen"):
        ks = ", ".join(f"{of['k']} for {name}" for name, of in result["chosen"].items())
        lines += ["", f"  chosen by training images, for each of which the others vote: k = {ks}"]
    return "\n".join(lines) + "\n"
