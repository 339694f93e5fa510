"""The labelled training and test images of an evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Any

import numpy as np

from simsiam_tf.data import Source, open_source, subset
from simsiam_tf.data.sources.base import MissingSplit
from simsiam_tf.data.sources.open_source import full_specification, without_split
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

HELD_OUT = 10  # every tenth image is a test image where a set has no test or validation split
MANY_IMAGES = 50  # of so many images of a class in random order, some are among every tenth


@dataclasses.dataclass(frozen=True)
class Splits:
    """Labelled training and test images of the same classes.

    The two may share images where the user names both sets. classes: number of classes.
    """

    train: Source
    test: Source
    classes: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names or tuple(map(str, range(self.classes)))


def open_splits(data: str, test: str = "auto", **options) -> Splits:
    """Opens the splits that the options `data` and `test` name.

    Args:
        data: a labelled set; its training split unless it names another.
        test: a labelled set; "auto": the test or validation split of `data`, or, where it has none or `data`
            names images of it, every tenth image, which is then left out of the training.
        **options: arguments of `open_source`.

    Raises:
        UserError: a set has no labels, two sets differ in classes or channels, or `data` alone is too small.
    """
    train = check_labels(open_source(data, "train", **options), "data")
    if test != "auto":
        test_source = check_labels(open_source(test, "test", **options), "test")
    else:
        test_source = open_test_split(data, train, **options)
    if test_source is None:
        train_ids, test_ids = held_out_ids(train)
        if not len(train_ids):
            raise UserError(f"data={data}: {train.size} images are too few to hold some out. Pass `test`.")
        test_source = subset(train, test_ids, f"{train.name}, every {HELD_OUT}th image")
        train = subset(train, train_ids, f"{train.name}, all but every {HELD_OUT}th image")
    check_same_kind(train, test_source, "test")
    classes = len(train.class_names) or 1 + int(max(all_labels(train).max(), all_labels(test_source).max()))
    return Splits(train, test_source, classes)


def check_same_kind(train: Source, test: Source, option: str) -> None:
    """Raises UserError where two sets differ in their classes or channels.

    option: name of the option that gave the second set.
    """
    if train.class_names and test.class_names and train.class_names != test.class_names:
        other = sorted(set(train.class_names) ^ set(test.class_names))
        shown = f"{len(other)} are in one only, such as {other[0]}" if other else "only their order differs"
        raise UserError(f"{option}={test.name}: has other classes than {train.name}; {shown}.")
    if train.channels != test.channels:
        raise UserError(
            f"{option}={test.name}: has {counted(test.channels, 'channel')}, {train.name} "
            f"{train.channels}. Give a set of the same kind."
        )


def check_labels(source: Source, option: str, advice: str = "") -> Source:
    """Returns the source. Raises UserError where it has no labels.

    option: name of the option that gave the source. advice: an alternative, for the message.
    """
    if source.labels is None:
        raise UserError(
            f"{option}={source.name}: has no labels. Give a set with labels, or a folder with one "
            f"sub-folder per class{advice}."
        )
    return source


def held_out_ids(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """(ids of training images, ids of test images): every HELD_OUTth image is a test image.

    If a class of at least MANY_IMAGES images would be missing from either, as where classes take turns, the
    second image of each class and every HELD_OUTth after it are the test images instead.
    """
    ids = np.arange(source.size)
    is_test = ids % HELD_OUT == 0
    if source.labels is not None:
        _, label, count = np.unique(all_labels(source), return_inverse=True, return_counts=True)
        test_count = np.bincount(label[is_test], minlength=len(count))
        if ((count >= MANY_IMAGES) & ((test_count == 0) | (test_count == count))).any():
            order = np.argsort(label, kind="stable")
            place = np.empty_like(ids)  # of an image in its class
            place[order] = ids - np.repeat(np.cumsum(count) - count, count)
            is_test = place % HELD_OUT == 1
    return ids[~is_test], ids[is_test]


def all_labels(source: Source) -> np.ndarray:
    """The labels of all images of a labelled source: int64 [size]."""
    assert source.labels is not None
    return np.asarray(source.labels[np.arange(source.size)])


def open_test_split(spec: str, train: Source, **options: Any) -> Source | None:
    """Opens the labelled test images of the set that `spec` names: its split "test", or else "validation".

    None where it has neither; also where `train`, the source of `spec`, has some of these images, as a line
    on stderr then says.
    """
    name = without_split(spec)
    if name is None:
        return None
    for split in ("test", "validation"):
        with contextlib.suppress(MissingSplit):
            source = open_source(name, split, **options)
            # TFDS has −1 for labels that it withholds.
            if source.labels is not None and source.labels[np.arange(1)].min() >= 0:
                if not _has_images_of(train, spec, split, source):
                    return source
                overlap = f"has images of the split {split!r}, which would be the test"
                instead = f"every {HELD_OUT}th image is held out for the test instead"
                print(f"{printable_text(train.name)}: {overlap}: {instead}", file=sys.stderr)
                return None
    return None


def _has_images_of(train: Source, spec: str, split: str, split_source: Source) -> bool:
    """Whether `train`, the source of `spec`, has images of a split.

    So have "digits:test[:99]" and "tfds:NAME:train+test" of "test". split_source: the whole split.
    """
    if spec.startswith("list:"):  # its rows may name an image for two splits
        return not set(getattr(train, "names", ())).isdisjoint(getattr(split_source, "names", ()))
    named = full_specification(spec).removeprefix(without_split(spec) or "").removeprefix(":")
    return bool({part.partition("[")[0].strip() for part in named.split("+")} & {split, "all"})


def balanced(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Sorted ids of a share of the images of every class, at least one of each.

    A larger share contains a smaller one of the same seed.

    labels: [N]. share: in (0, 1].
    """
    labels = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        ids = order[labels[order] == label]
        chosen.append(ids[: max(1, round(share * len(ids)))])
    return np.sort(np.concatenate(chosen))
