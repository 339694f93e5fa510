"""Sets of images in Python: any object with `len(images)` and `images[i]`."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.data.sources.base import Source, short_digest
from simsiam_tf.runtime.errors import UserError


class Images(Protocol):
    """A set of images. Attributes that are used if it has them: name, labels (int [N]), class_names."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes | np.ndarray:
        """The image `index`: encoded bytes, or uint8 [H, W, C] or [H, W]; the same each time."""
        ...


@dataclasses.dataclass(frozen=True)
class PythonSource(Source):
    """The images of a Python object, read one at a time. rule: how encoded bytes become pixels."""

    images: Images
    rule: PixelRule

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(lambda i: self.image(int(i)), [index], tf.uint8)
        return tf.ensure_shape(pixels, [None, None, self.channels])

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, channels] of image i. Raises UserError for what is neither bytes nor such an array."""
        image = self.images[i]
        if isinstance(image, bytes):
            return render(image, self.rule)
        image = np.asarray(image)
        image = image[..., None] if image.ndim == 2 else image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != self.channels:
            raise UserError(
                f"{self.name}: image {i} must be bytes or uint8 [H, W, {self.channels}]. Received: "
                f"{image.dtype} {image.shape}."
            )
        return image

    def subset(self, ids: np.ndarray, name: str) -> PythonSource:
        labels = None if self.labels is None else np.asarray(self.labels[ids])
        return dataclasses.replace(
            self, name=name, size=len(ids), labels=labels, images=_Chosen(self.images, ids),
            fingerprint=short_digest(self.fingerprint.encode(), ids.tobytes()),
        )  # fmt: skip


class _Chosen:
    def __init__(self, images: Images, ids: np.ndarray) -> None:
        self._images, self._ids = images, ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int, /) -> bytes | np.ndarray:
        return self._images[int(self._ids[index])]


def from_images(images: Images, rule: PixelRule | None = None) -> PythonSource:
    """A source of the images of a Python object.

    rule: how encoded bytes become pixels; by default to 3 channels, or to as many as the first image has,
    if that is an array.
    """
    name, size = getattr(images, "name", type(images).__name__), len(images)
    if not size:
        raise UserError(f"{name}: holds no image.")
    first = images[0]
    if rule is None:
        gray = not isinstance(first, bytes) and (np.ndim(first) == 2 or np.shape(first)[-1] == 1)
        rule = PixelRule(1 if gray else 3 if isinstance(first, bytes) else int(np.shape(first)[-1]))
    labels: Any = getattr(images, "labels", None)
    sample = [images[int(i)] for i in np.linspace(0, size - 1, min(size, 16))]
    digest = short_digest(
        str(size).encode(),
        *(i if isinstance(i, bytes) else np.ascontiguousarray(i).tobytes() for i in sample),
    )
    return PythonSource(
        name, size, rule.channels, None if labels is None else np.asarray(labels, np.int64),
        tuple(getattr(images, "class_names", ())), digest, images, rule,
    )  # fmt: skip
