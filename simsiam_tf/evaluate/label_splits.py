"""The labelled images that a backbone is judged by: those it may learn from, and those it is scored on."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.data import Source, open_source, subset
from simsiam_tf.data.sources.open_source import query_split
from simsiam_tf.runtime.errors import UserError

HELD_OUT = 10  # every tenth image is asked where a set has no split of its own for it


@dataclasses.dataclass(frozen=True)
class Splits:
    """train, test: labelled sources of the same classes, with no image in common."""

    train: Source
    test: Source
    classes: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names or tuple(map(str, range(self.classes)))


def open_splits(data: str, test: str = "auto", **options) -> Splits:
    """The splits that `data` and `test` name.

    Args:
        data: a labelled set; its training split unless it names another.
        test: a labelled set; "auto": the test split, or every tenth image where there is none,
            which `train` then lacks.
        **options: of `open_source`.

    Raises:
        UserError: no labels, or other classes or channels in the two.
    """
    train = labelled(open_source(data, "train", **options), "data")
    if test == "auto":
        asked = split_of(data, options.get("data_dir"))
        if asked is None:
            held = np.arange(train.size) % HELD_OUT == 0
            if not 0 < held.sum() < train.size:
                raise UserError(
                    f"data={data}: {train.size} images are too few to hold some out. Pass `test`."
                )
            every = np.arange(train.size)
            asked = subset(train, every[held], f"{train.name}, every {HELD_OUT}th image")
            train = subset(train, every[~held], f"{train.name}, all but every {HELD_OUT}th image")
    else:
        asked = labelled(open_source(test, "test", **options), "test")
    if train.class_names and asked.class_names and train.class_names != asked.class_names:
        other = sorted(set(train.class_names) ^ set(asked.class_names)) or ["their order"]
        raise UserError(
            f"test={asked.name}: has other classes than {train.name}; {len(other)} are in one only, "
            f"such as {other[0]}."
        )
    if train.channels != asked.channels:
        raise UserError(
            f"test={asked.name}: has {asked.channels} channels, {train.name} {train.channels}. Give a set "
            "of the same kind."
        )
    classes = len(train.class_names) or 1 + int(max(np.max(train.labels), np.max(asked.labels)))
    return Splits(train, asked, classes)


def labelled(source: Source, flag: str) -> Source:
    """The source itself. Raises UserError where it has no labels."""
    if source.labels is None:
        raise UserError(
            f"{flag}={source.name}: has no labels. Give a set with labels, or a folder with one "
            "sub-folder a class."
        )
    return source


def split_of(spec: str, data_dir: str | None = None) -> Source | None:
    """The labelled split that goes with a training set: "test", else "validation", else None."""
    if query_split(spec) is None:
        return None
    whole = ":".join(spec.split(":")[:2]) if spec.startswith("tfds:") else spec.split(":")[0]
    for split in ("test", "validation"):
        try:
            source = open_source(whole, split, data_dir)
        except UserError:
            continue
        if source.labels is not None and source.labels[:1].min() >= 0:  # −1: all are withheld
            return source
    return None


def balanced(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Sorted ids of `share` of every class, at least one: the same for the same labels and seed.

    A larger share contains a smaller one.

    Args:
        labels: int [N].
        share: in (0, 1].
        seed: of the choice.
    """
    labels = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    taken = []
    for label in np.unique(labels):
        own = order[labels[order] == label]
        taken.append(own[: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(taken))
