"""scenes:SOURCE: pictures in which labelled objects lie on textures, with exact boxes and masks."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from simsiam_tf.config.places import is_encoded
from simsiam_tf.data import Source
from simsiam_tf.data.images.render import opacity
from simsiam_tf.data.sources.base import EncodedSource, SourceOptions, short_digest
from simsiam_tf.dense_tasks.annotated_files import STRICT
from simsiam_tf.dense_tasks.annotations import IGNORE, Annotated, AnnotatedSet
from simsiam_tf.evaluate.label_splits import all_labels, open_splits
from simsiam_tf.runtime.display_text import counted, one_line
from simsiam_tf.runtime.errors import UserError

OBJECTS = (1, 5)  # fewest and most in a scene
SIDES = (0.2, 0.5)  # longer side of an object, as a share of the scene's
OPAQUE = 32  # least value, in [0, 255], of a gray pixel on black and of an opacity that belong to an object
MOST_COVERED = 0.3  # share of an object that later ones may hide
TRIES = 10  # places that are tried for an object
SMALLEST = 4  # pixels of an object that count as one
KEPT_BYTES, BYTES_A_PIXEL = 2**29, 4  # of scenes in memory; of a scene and its mask


@dataclasses.dataclass(frozen=True)
class Scenes(AnnotatedSet):
    """Scenes of square sides, each a function of the seed and its id.

    A scene has `OBJECTS` images of the source, flipped and resized at random, at random places. An object is
    what is opaque or, in a gray image without transparency, what is not black. A later object may cover
    up to `MOST_COVERED` of an earlier one; boxes and masks are of what is seen.

    source: labelled images. side: pixels of a scene. seed: another one gives other scenes. kept: scenes that
    were read before, as many as fit into `KEPT_BYTES`: making one takes most of the time of a square.
    """

    source: Source
    side: int
    seed: int = 0
    kept: dict[int, Annotated] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def read(self, index: int) -> Annotated:
        scene = self.kept.get(index)
        if scene is None:
            scene = self._make(index)
            if len(self.kept) < KEPT_BYTES // (self.side**2 * BYTES_A_PIXEL):
                self.kept[index] = scene
        return scene

    def bytes_kept(self) -> int:
        return min(KEPT_BYTES, self.size * self.side**2 * BYTES_A_PIXEL)

    def _make(self, index: int) -> Annotated:
        rng = np.random.default_rng([self.seed, index])
        scene = _texture(rng, self.side)
        owners = np.zeros((self.side, self.side), np.int64)  # 1 + the number of the object that is seen
        labels: list[int] = []
        for _ in range(int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))):
            i = int(rng.integers(self.source.size))
            colours, opaque = _resized(*self._cut_out(i), rng, self.side)
            place = _free_place(owners, opaque, rng)
            if place is None:
                continue
            labels.append(self._label(i))
            top, left = place
            area = np.s_[top : top + opaque.shape[0], left : left + opaque.shape[1]]
            scene[area][opaque] = colours[opaque]
            owners[area][opaque] = len(labels)
        boxes = [_bounds(owners == k) for k in range(1, len(labels) + 1)]
        mask = np.concatenate([[0], 1 + np.array(labels, np.int64)])[owners]
        return Annotated(
            scene, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64),
            np.zeros(len(labels), bool), mask.astype(np.uint8),
        )  # fmt: skip

    def _label(self, i: int) -> int:
        assert self.source.labels is not None
        return int(self.source.labels[i])

    def _cut_out(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The smallest rectangle around an object: (colours uint8 [h, w, 3], which pixels are its)."""
        source, opaque = self.source, None
        if isinstance(source, EncodedSource):
            pixels, opaque = _decoded(source, i)
        else:
            pixels = source.decode(tf.constant(i)).numpy() if source.pixels is None else source.pixels[i]
        if opaque is None:
            is_gray = pixels.shape[-1] == 1 or bool((pixels == pixels[..., :1]).all())
            opaque = pixels.max(axis=-1) >= (OPAQUE if is_gray else 0)
        colours = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        if opaque.sum() < SMALLEST:
            opaque = np.ones_like(opaque)
        left, top, right, lower = _bounds(opaque)
        return colours[top:lower, left:right], opaque[top:lower, left:right]


def _decoded(source: EncodedSource, i: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels, uint8 [H, W, channels], and which are opaque, bool [H, W], None without transparency.

    Raises:
        OSError: the image cannot be read.
    """
    index = tf.constant(i, tf.int64)
    try:
        data = source.read(index)
        pixels = source.decode_bytes(data, index).numpy() if source.pixels is None else source.pixels[i]
        alpha = opacity(bytes(data.numpy()))
        return pixels, None if alpha is None else alpha >= OPAQUE
    except (tf.errors.OpError, ValueError) as error:
        name = source.names[i] if source.names else f"{source.name}, image {i}"
        reason = re.sub(r"^.*; | \[Op:.*|\{\{.*?\}\}", "", one_line(getattr(error, "message", error)))
        raise OSError(errno.EIO, reason[:200], os.path.join(source.root or "", name)) from error


def open_scenes(
    place: str,
    split: str,
    scenes: int,
    side: int,
    data_dir: str | None = None,
    for_masks: bool = False,
    options: SourceOptions = STRICT,
) -> Scenes:
    """Opens `scenes` scenes of "scenes:PLACE", made of labelled images of one split of a place.

    split: "train" or "test", as `label_splits.open_splits` divides the place's images. for_masks: whether
    class names are those of masks, the background first. options: `on_bad_image` and `check` are as for
    `open_source`.

    Raises:
        UserError: the place cannot be opened, or has no labels.
    """
    if not place:
        raise UserError("data=scenes: names no images. Pass scenes:fashion_mnist or scenes:folder:PATH.")
    reading: dict[str, Any] = {"data_dir": data_dir}
    if is_encoded(place):
        names = ("on_bad_image", "check", "background", "pixel_range")
        reading |= {name: getattr(options, name) for name in names}
    splits = open_splits(place, **reading)
    source = splits.train if split == "train" else splits.test
    names = ("background", *splits.class_names) if for_masks else splits.class_names
    if for_masks and len(names) > IGNORE:
        raise UserError(f"data=scenes:{place}: has {len(names) - 1} classes, a mask room for {IGNORE - 1}.")
    if source.channels not in (1, 3):
        raise UserError(
            f"data=scenes:{place}: has {counted(source.channels, 'channel')}. Give colour or gray images."
        )
    labels = all_labels(source).tobytes()
    fingerprint = short_digest(source.contents().encode(), f"{side} {scenes} {names}".encode(), labels)
    seed = 0 if split == "train" else 1
    pixels = source.rule.options() if isinstance(source, EncodedSource) else {}
    return Scenes(f"scenes:{place}", scenes, names, fingerprint, source, side, seed, pixels=pixels)


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """A random coloured texture, uint8 [side, side, 3]: noise of three sizes around a colour."""
    layers = np.zeros((side, side, 3))
    for cells, strength in ((3, 60), (9, 35), (32, 20)):
        cells = min(cells, side)
        noise = rng.normal(0.0, strength, (cells, cells, 1))
        noise = noise + rng.normal(0.0, strength / 3, (cells, cells, 3))
        shown = (np.clip(noise, -127, 127) + 128).astype(np.uint8)
        layers += np.array(Image.fromarray(shown).resize((side, side), Image.Resampling.BICUBIC), float) - 128
    return np.clip(layers + rng.uniform(60, 190, 3), 0, 255).astype(np.uint8)


def _resized(
    colours: np.ndarray, opaque: np.ndarray, rng: np.random.Generator, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """An object at a random size, mirrored half of the time."""
    longer = rng.uniform(*SIDES) * side
    factor = longer / max(opaque.shape)
    height, width = (max(2, round(n * factor)) for n in opaque.shape)
    if rng.random() < 0.5:
        colours, opaque = colours[:, ::-1], opaque[:, ::-1]
    new = Image.fromarray(np.ascontiguousarray(colours)).resize((width, height), Image.Resampling.BILINEAR)
    alpha = Image.fromarray(np.ascontiguousarray(opaque).astype(np.uint8) * 255)
    seen = np.array(alpha.resize((width, height), Image.Resampling.BILINEAR)) >= 128
    return np.array(new), seen if seen.any() else np.ones_like(seen)


def _free_place(owners: np.ndarray, opaque: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """(top, left) at which an object lies within the scene and leaves enough of the others; None for none."""
    height, width = opaque.shape
    sizes = np.bincount(owners.ravel())
    for _ in range(TRIES):
        top, left = (int(rng.integers(n - m + 1)) for n, m in zip(owners.shape, opaque.shape, strict=True))
        hidden = np.bincount(owners[top : top + height, left : left + width][opaque], minlength=len(sizes))
        if (hidden[1:] <= MOST_COVERED * sizes[1:]).all():
            return top, left
    return None


def _bounds(region: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and lower edge of the True pixels."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
