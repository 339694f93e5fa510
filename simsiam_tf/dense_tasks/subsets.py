"""Parts of annotated sets."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.data.sources.base import short_digest
from simsiam_tf.dense_tasks.annotations import Annotated, AnnotatedSet


@dataclasses.dataclass(frozen=True)
class AnnotatedSubset(AnnotatedSet):
    """The set whose image i is image ids[i] of another."""

    whole: AnnotatedSet
    ids: np.ndarray

    def read(self, index: int) -> Annotated:
        return self.whole.read(int(self.ids[index]))

    def has_truth(self, index: int) -> bool:
        return self.whole.has_truth(int(self.ids[index]))

    def bytes_kept(self) -> int:
        return self.whole.bytes_kept() * self.size // self.whole.size

    def contents(self) -> str:
        return short_digest(self.whole.contents().encode(), self.ids.tobytes())


def share_of(images: AnnotatedSet, share: float) -> AnnotatedSet:
    """A random share of the images, at least one; a larger share contains a smaller one."""
    if share == 1:
        return images
    count = max(1, round(share * images.size))
    ids = np.sort(np.random.default_rng(0).permutation(images.size)[:count])
    return subset_of(images, ids, f"{images.name}, {share:.4g} of it")


def subset_of(images: AnnotatedSet, ids: np.ndarray, name: str) -> AnnotatedSubset:
    """The set whose image i is image ids[i] of another."""
    fingerprint = short_digest(images.fingerprint.encode(), ids.tobytes())
    return AnnotatedSubset(name, len(ids), images.class_names, fingerprint, images, ids, pixels=images.pixels)
