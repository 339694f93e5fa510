"""kNN and linear probes on stored features, as the commands knn_eval and probe run them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf import config as configs
from simsiam_tf.config.backbones import is_network
from simsiam_tf.evaluate.chance import FEW_IMAGES, accuracy_text, chance_text
from simsiam_tf.evaluate.finishing import PIXEL_SHRINKAGE, fit_whitening, pixel_side, sample_rows
from simsiam_tf.evaluate.label_splits import Splits, all_labels, balanced, open_splits
from simsiam_tf.evaluate.linear_probe import Probe, logistic_probe, sgd_probe
from simsiam_tf.features.extraction import MAX_PIXEL_VALUES, raw_pixels
from simsiam_tf.features.knn import knn_accuracy
from simsiam_tf.features.store import stored_features
from simsiam_tf.nets.whitening import whitening_layer
from simsiam_tf.pretrained import published, weights_address
from simsiam_tf.pretrained.backbone_file import card_entries
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text, check_writable
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

CLASSIFIERS = {
    "logistic": "logistic regression", "lars": "linear classifier by LARS", "sgd": "linear classifier by SGD",
}  # fmt: skip
LEAVE_ONE_OUT_IMAGES = 10_000  # most training images that are classified to choose k
# "this backbone", "raw pixels" → features [N, F] of the (training, test) images
Features = dict[str, tuple[np.ndarray, np.ndarray]]


def splits_for(config: Any, pretrained: Pretrained) -> Splits:
    """The labelled images of a `LabelledConfig`. Raises UserError where they do not fit the backbone."""
    data = config.data or training_data(pretrained)
    splits = open_splits(data, config.test, **pretrained.source_options(config, data))
    pretrained.check_channels(splits.train)
    return splits


def training_data(pretrained: Pretrained) -> str:
    """The specification of the images that a backbone was pre-trained on.

    Raises:
        UserError: its model card records none, or relative paths that do not exist in the working folder.
    """
    data = card_entries(pretrained.card, "configuration").get("data")
    if not isinstance(data, str):
        raise UserError(
            f"`data`: missing, and nothing beside {pretrained.place} says what it was trained on. "
            "Pass data=folder:/path/to/images, or a set's name."
        )
    path = Path(data.partition(":")[2])
    if configs.is_file(data) and configs.absolute_places(data) != data and not path.exists():
        raise UserError(
            f"`data`: missing. {pretrained.place} was trained on {data}, a path that is relative to another "
            "working folder. Pass data=folder:/path/to/images."
        )
    return data


def beside_weights(weights: str, name: str) -> Path:
    """WORKDIR/name for a work folder; for a .keras file, its path with .name in place of .keras.

    For an address and for a published network, runs/NAME/name.
    """
    if is_network(weights):
        return published.results_folder(weights) / name
    if weights_address.is_address(weights):
        return weights_address.results_folder(weights) / name
    path = Path(weights).expanduser()
    return path / name if path.is_dir() else path.with_suffix(f".{name}")


def evaluate_stored_features(
    config: Any, evaluate: Callable[[Any, Splits, Features], dict[str, Any]], file_name: str
) -> None:
    """Evaluates the stored features of a backbone, prints a table, and writes the result as JSON.

    Args:
        config: a `KnnConfig` or `ProbeConfig`.
        evaluate: `knn_scores` or `probe_scores`.
        file_name: name of the result's file (`beside_weights`), where `config.out` is not given.

    Raises:
        UserError: as `open_pretrained` and `splits_for`, or the result cannot be written.
    """
    pretrained = open_pretrained(config.weights, **config.preprocessing())
    path = Path(config.out).expanduser() if config.out else beside_weights(config.weights, file_name)
    check_writable(path, folders=not config.out)
    splits = splits_for(config, pretrained)
    scores = evaluate(config, splits, _features(config, pretrained, splits))
    result = {
        "what": scores.pop("what"), "train": splits.train.name, "test": splits.test.name,
        "images": scores.pop("images"), "features": pretrained.features,
        "whitened": whitening_layer(pretrained.backbone) is not None, "weights": pretrained.place,
        "sha256": pretrained.sha256, **scores,
    }  # fmt: skip
    print(_result_table(result))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror}).") from error
    print(f"  written to {path}")


def _features(config: Any, pretrained: Pretrained, splits: Splits) -> Features:
    folder = Path(config.features_dir).expanduser() if config.features_dir else None
    train, test = (
        stored_features(pretrained, source, folder, config.batch_size)
        for source in (splits.train, splits.test)
    )
    features = {"this backbone": (train, test)}
    if config.raw_pixels and pretrained.augmentation.size**2 * pretrained.channels <= MAX_PIXEL_VALUES:
        features["raw pixels"] = _pixels(pretrained, splits)
    return features


def _pixels(pretrained: Pretrained, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Raw pixels of the training and the test images, whitened where the backbone's features are."""
    views, whitened = pretrained.views, whitening_layer(pretrained.backbone) is not None
    side = pixel_side(pretrained.augmentation.size, pretrained.channels) if whitened else None
    train, test = (raw_pixels(source, views, side=side) for source in (splits.train, splits.test))
    fitted = fit_whitening(sample_rows(train), PIXEL_SHRINKAGE) if side else None
    return (fitted(train, in_place=True), fitted(test, in_place=True)) if fitted else (train, test)


def knn_scores(config: Any, splits: Splits, features: Features) -> dict[str, Any]:
    """The result of knn_eval, with these entries among others:

    "accuracy": key of `features` → k → accuracy in [0, 1].
    "chosen": key of `features` → the k with the best leave-one-out accuracy on training images, and its
        accuracies; empty where there is only one k.
    "left out": values of k above the number of training images.
    """
    train_labels, test_labels = all_labels(splits.train), all_labels(splits.test)
    began, accuracy, chosen = time.perf_counter(), {}, {}
    ks = [k for k in config.ks if k <= splits.train.size] or [splits.train.size]
    for name, (bank, queries) in features.items():
        by_k = knn_accuracy(bank, train_labels, queries, test_labels, ks, config.temperature)
        accuracy[name] = {f"k = {k}": a for k, a in by_k.items()}
        if len(by_k) > 1:
            rows = balanced(train_labels, min(1.0, LEAVE_ONE_OUT_IMAGES / len(train_labels)), config.seed)
            queries, labels = bank[rows], train_labels[rows]
            options = {"ks": ks, "temperature": config.temperature, "query_rows": rows}
            training = knn_accuracy(bank, train_labels, queries, labels, **options)
            k = max(training, key=training.__getitem__)
            chosen[name] = {"k": k, "training images": training, "test": by_k[k]}
            accuracy[name]["chosen k"] = by_k[k]
    return {
        "what": "kNN accuracy", "images": [splits.train.size, splits.test.size],
        "temperature": config.temperature, "accuracy": accuracy, "chosen": chosen,
        "left out": [f"k = {k}" for k in config.ks if k not in ks],
        "seconds of the search": round(time.perf_counter() - began, 2),
    }  # fmt: skip


def probe_scores(config: Any, splits: Splits, features: Features) -> dict[str, Any]:
    """The result of probe, with these entries among others:

    "accuracy": key of `features` → accuracy in [0, 1] on held-out training images and on test images.
    "sweep": key of `features` → its `Probe` as a dictionary.
    """
    labels, test_labels = all_labels(splits.train), all_labels(splits.test)
    ids = balanced(labels, config.labels, config.seed)

    def probe(train: np.ndarray, test: np.ndarray) -> Probe:
        train = train if len(ids) == len(train) else train[ids]
        data = (train, labels[ids], test, test_labels)
        if config.classifier == "logistic":
            return logistic_probe(*data, config.values, config.seed)
        return sgd_probe(*data, config.classifier, config.values or None, config.epochs, config.seed)

    probes = {name: probe(train, test) for name, (train, test) in features.items()}
    return {
        "what": CLASSIFIERS[config.classifier], "images": [len(ids), splits.test.size],
        "accuracy": {n: {"held out": max(p.validation.values()), "test": p.test} for n, p in probes.items()},
        "sweep": {name: dataclasses.asdict(p) for name, p in probes.items()}, "seed": config.seed,
    }  # fmt: skip


def _result_table(result: dict[str, Any]) -> str:
    """A result as text, one row for each key of `Features`."""
    accuracy = result["accuracy"]
    columns = list(next(iter(accuracy.values())))
    training, test = result["images"]
    images: dict[str, Any] = dict.fromkeys(columns, test)  # column → number of images of its accuracies
    if sweeps := result.get("sweep"):
        images["held out"] = next(iter(sweeps.values()))["held_out"]
    width = 18 if min(images.values()) <= FEW_IMAGES else 10
    lines = [
        f"{result['what']}: {counted(test, 'image')} of {result['test']}, by {training} of {result['train']}",
        "",
        "  " + " " * 20 + "".join(f"{c:>{width}}" for c in columns),
    ]
    for name, row in accuracy.items():
        cells = (accuracy_text(row[c], images[c]) for c in columns)
        lines.append(f"  {name:20}" + "".join(f"{cell:>{width}}" for cell in cells))
    tested = [share for row in accuracy.values() for column, share in row.items() if column != "held out"]
    lines += ["", f"  {chance_text(tested, test)}"]
    if result.get("left out"):
        lines.append(
            f"  Left out: {', '.join(result['left out'])}, above {counted(training, 'training image')}."
        )
    if result["whitened"]:
        lines += ["", "  all features are whitened, the backbone's by its last layer"]
    if result.get("chosen"):
        shares = {name: row["training images"][row["k"]] for name, row in result["chosen"].items()}
        ks = ", ".join(f"{row['k']} for {n} ({shares[n]:.1%})" for n, row in result["chosen"].items())
        lines += ["", f"  k chosen by leave-one-out accuracy on training images: {ks}"]
    return "\n".join(lines) + "\n"
