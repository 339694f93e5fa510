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
MANY = 50  # images of a class, of which by chance some would be among every tenth


@dataclasses.dataclass(frozen=True)
class Splits:
    """Labelled training and test images of the same classes.

    Where the user names both sets, they may share images. classes: number of classes.
    """

    train: Source
    test: Source
    classes: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names or tuple(map(str, range(self.classes)))


def open_splits(data: str, test: str = "auto", **options) -> Splits:
    """The splits that the options `data` and `test` name.

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
        tested = check_labels(open_source(test, "test", **options), "test")
    else:
        tested = open_test_split(data, train, **options)
    if tested is None:
        train_ids, test_ids = held_out_ids(train)
        if not len(train_ids):
            raise UserError(f"data={data}: {train.size} images are too few to hold some out. Pass `test`.")
        tested = subset(train, test_ids, f"{train.name}, every {HELD_OUT}th image")
        train = subset(train, train_ids, f"{train.name}, all but every {HELD_OUT}th image")
    check_same_kind(train, tested, "test")
    classes = len(train.class_names) or 1 + int(max(all_labels(train).max(), all_labels(tested).max()))
    return Splits(train, tested, classes)


def check_same_kind(train: Source, tested: Source, option: str) -> None:
    """Raises UserError where two sets differ in their classes or channels.

    option: name of the option that gave the second set.
    """
    if train.class_names and tested.class_names and train.class_names != tested.class_names:
        other = sorted(set(train.class_names) ^ set(tested.class_names))
        shown = f"{len(other)} are in one only, such as {other[0]}" if other else "only their order differs"
        raise UserError(f"{option}={tested.name}: has other classes than {train.name}; {shown}.")
    if train.channels != tested.channels:
        raise UserError(
            f"{option}={tested.name}: has {counted(tested.channels, 'channel')}, {train.name} "
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

    Where a class of MANY images would be missing from either, as where classes take turns, the second image
    of each class and every HELD_OUTth after it are test images.
    """
    ids = np.arange(source.size)
    tested = ids % HELD_OUT == 0
    if source.labels is not None:
        _, label, count = np.unique(all_labels(source), return_inverse=True, return_counts=True)
        of_test = np.bincount(label[tested], minlength=len(count))
        if ((count >= MANY) & ((of_test == 0) | (of_test == count))).any():
            order = np.argsort(label, kind="stable")
            place = np.empty_like(ids)  # of an image in its class
            place[order] = ids - np.repeat(np.cumsum(count) - count, count)
            tested = place % HELD_OUT == 1
    return ids[~tested], ids[tested]


def all_labels(source: Source) -> np.ndarray:
    """The labels of all images of a labelled source: int64 [size]."""
    assert source.labels is not None
    return np.asarray(source.labels[np.arange(source.size)])


def open_test_split(spec: str, train: Source, **options: Any) -> Source | None:
    """The labelled test images of the set that `spec` names: split "test", else "validation", else None.

    None, too, where `train`, the source of `spec`, has some of these images; a line on stderr says so.
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
                mend = f"every {HELD_OUT}th image is held out for the test instead"
                print(f"{printable_text(train.name)}: {overlap}: {mend}", file=sys.stderr)
                return None
    return None


def _has_images_of(train: Source, spec: str, split: str, tested: Source) -> bool:
    """Whether the source of `spec` has images of a split: "digits:test[:99]" and "tfds:NAME:train+test" do.

    tested: the whole split.
    """
    if spec.startswith("list:"):  # its rows may name an image for two splits
        return not set(getattr(train, "names", ())).isdisjoint(getattr(tested, "names", ()))
    named = full_specification(spec).removeprefix(without_split(spec) or "").removeprefix(":")
    return bool({part.partition("[")[0].strip() for part in named.split("+")} & {split, "all"})


def balanced(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Sorted ids of a share in (0, 1] of every class, at least one of each.

    They depend on share, labels [N] and seed alone. A larger share contains a smaller one.
    """
    labels = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        ids = order[labels[order] == label]
        chosen.append(ids[: max(1, round(share * len(ids)))])
    return np.sort(np.concatenate(chosen))
