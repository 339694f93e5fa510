"""tf.data pipelines: the views of training steps, and the views for evaluation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data import sampling
from simsiam_tf.data.augment.augmentations import AUGMENTATIONS, Augmentation
from simsiam_tf.data.augment.views import SMALL, Views
from simsiam_tf.data.mapping import map_each, map_images, with_options
from simsiam_tf.data.sources.base import ArraySource, Source
from simsiam_tf.data.sources.decoded import keep_decoded
from simsiam_tf.data.sources.open_source import open_source
from simsiam_tf.runtime import cores
from simsiam_tf.runtime.errors import UserError, nearest

PARALLEL: int | None = cores.decoding_threads()  # of images, and of pieces of a batch; None: one
ENDLESS = 2**40  # steps, more than any training takes
PREFETCHED_STEPS = 2
COMMAND_NAMES = {"image_size": "size=96", "crop_area": "area=(0.2, 1.0)"}  # an option, and its field here
PIECE_PIXELS = 8 * 224 * 224  # pixels of a piece, of one view of each image: they fit a processor's cache


@dataclasses.dataclass(frozen=True)
class StepBatches:
    """The batches of a training run, each a function of the step alone.

    Dataset elements are dictionaries: "views", `views.count` × float32 [rows, S, S, C]; "index", ids of the
    images, int64 [rows]; with `targets`, "target", their labels, int64 [rows]. rows: `rows_per_element`. An
    element is made in pieces of `rows_per_piece` rows.

    Args:
        source: the images; with labels, for `targets`.
        views: the augmentation.
        batch_size: images in a step, over all workers.
        seed: seed of the order of the images and of the augmentation's draws.
        rows: (a, b); this process makes rows a to b − 1 of every batch. None: all rows.
        elements_per_step: dataset elements that this process's rows of a step are cut into, one a replica.
        augment_on_host: False leaves the second stage of `Views` to a later `augment_batch` on the
            accelerator: elements hold {"crops": uint8 crops, "draws": uniforms} in place of "views".
        targets: whether elements hold "target". Lazy labels are read for the images of each piece alone.
    """

    source: Source
    views: Views
    batch_size: int
    seed: int = 0
    rows: tuple[int, int] | None = None
    elements_per_step: int = 1
    augment_on_host: bool = True
    targets: bool = False

    def __post_init__(self) -> None:
        if self.targets and self.source.labels is None:
            raise UserError(f"{self.source.name}: has no labels, so its batches have no targets.")

    @property
    def rows_per_element(self) -> int:
        """Rows of one dataset element."""
        start, stop = self.rows or (0, self.batch_size)
        return (stop - start) // self.elements_per_step

    @property
    def rows_per_piece(self) -> int:
        """Rows augmented at a time: the largest divisor of an element's rows within `PIECE_PIXELS`, or 1."""
        rows, size = self.rows_per_element, self.views.augmentation.size
        fits = [n for n in range(1, rows + 1) if rows % n == 0 and n * size**2 <= PIECE_PIXELS]
        return max(fits, default=1)

    @property
    def pieces_per_step(self) -> int:
        """Pieces that make up this process's rows of a step."""
        return self.elements_per_step * self.rows_per_element // self.rows_per_piece

    def dataset(self, first_step: int | tf.Tensor, last_step: int | tf.Tensor) -> tf.data.Dataset:
        """The elements of steps first_step to last_step − 1, in order. The steps may be scalar tensors."""
        first, last = (tf.cast(step, tf.int64) * self.pieces_per_step for step in (first_step, last_step))
        pieces = self.numbered_pieces(tf.data.Dataset.range(first, last), PARALLEL)
        return self.joined(map_each(pieces, lambda n, batch: batch))

    def numbered_pieces(self, numbers: tf.data.Dataset, parallel: int | None) -> tf.data.Dataset:
        """Numbers of pieces, in any order → (number, piece), a piece being a dictionary as an element is.

        A piece depends on its number alone, so that data workers can divide the numbers among them.

        parallel: images and pieces made at a time, or tf.data.AUTOTUNE; None: one.
        """
        source, views, size = self.source, self.views, self.rows_per_piece
        start, squares = (self.rows or (0, self.batch_size))[0], source.squares

        def rows_of(n: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Piece n, part n % pieces_per_step of its step → ids [size] and draws [size, views.draws]."""
            step, share = n // self.pieces_per_step, tf.math.floormod(n, self.pieces_per_step)
            at = start + share * size
            ids = sampling.example_ids(self.seed, step, self.batch_size, source.size)
            u = sampling.uniforms(self.seed, step, self.batch_size, views.draws)
            ids, u = ids[at : at + size], u[at : at + size]
            return tf.ensure_shape(ids, [size]), tf.ensure_shape(u, [size, views.draws])

        def batch_of(crops: tuple, ids: tf.Tensor, u: tf.Tensor) -> dict[str, Any]:
            batch = {"crops": crops, "draws": u, "index": ids}
            if self.targets:
                batch["target"] = source.targets(ids)
            return augment_batch(views, batch) if self.augment_on_host else batch

        def piece_of_array(n: tf.Tensor) -> tuple[tf.Tensor, dict]:
            ids, u = rows_of(n)
            if squares is None:
                return n, batch_of(views.crop_batch(source.gather(ids), u), ids, u)
            images, sizes = (tf.gather(x, ids) for x in (squares.pixels, squares.sizes))
            return n, batch_of(views.crop_batch(images, u, sizes), ids, u)

        def rows_of_piece(n: tf.Tensor) -> tuple:
            ids, u = rows_of(n)
            return ids, tf.fill([size], n), u, views.box_draws(u)

        if source.pixels is not None or squares is not None:
            return map_each(numbers, piece_of_array, parallel)
        rows = map_each(numbers, rows_of_piece, parallel).unbatch()
        crop = lambda image, i, n, u, draws: (n, views.crop_image(image, *draws), i, u)  # noqa: E731
        pieces = map_images(rows, source, crop, parallel).batch(size, drop_remainder=True)
        return map_each(pieces, lambda n, *rows: (n[0], batch_of(*rows)), parallel)

    def joined(self, pieces: tf.data.Dataset) -> tf.data.Dataset:
        """Joins pieces, which come in order, into elements, and prefetches `PREFETCHED_STEPS` of these."""
        count = self.rows_per_element // self.rows_per_piece

        def flat(x: tf.Tensor) -> tf.Tensor:
            return tf.reshape(x, [self.rows_per_element, *x.shape[2:]])

        if count > 1:
            batched = pieces.batch(count, drop_remainder=True)
            pieces = map_each(batched, lambda batch: tf.nest.map_structure(flat, batch))
        dataset = with_options(pieces, self.source)
        return dataset.prefetch(PREFETCHED_STEPS) if PREFETCHED_STEPS else dataset


def augment_batch(views: Views, batch: dict[str, Any]) -> dict[str, Any]:
    """The second stage: replaces "crops" and "draws" by "views". A batch that has "views" stays as it is."""
    if "views" in batch:
        return batch
    rest = {name: value for name, value in batch.items() if name not in ("crops", "draws")}
    return {**rest, "views": views.augment(batch["crops"], batch["draws"])}


def augmentation_for(source: Source) -> str:
    """The key of `AUGMENTATIONS` that suits a source, by its channels and, for arrays, the images' size."""
    if source.channels not in (1, 3):
        return "multichannel"
    small = isinstance(source, ArraySource) and source.images.shape[1] <= SMALL
    return ("grayscale" if source.channels == 1 else "cifar") if small else "imagenet"


def view_size(source: Source, augmentation: Augmentation) -> int:
    """The side of views in pixels: that of the images where they are in memory and of at most 64, else the
    augmentation's size.
    """
    side = source.images.shape[1] if isinstance(source, ArraySource) else SMALL + 1
    return side if side <= SMALL else augmentation.size


def augmentation_of(
    source: Source, augmentation: str | Augmentation | None = None, **changes: Any
) -> Augmentation:
    """The augmentation of a name, or the one that suits a source, with the size of `view_size`.

    augmentation: a key of `AUGMENTATIONS`; an `Augmentation` keeps its own size. **changes: fields to
    replace, such as size=96.

    Raises ValueError: a change is no field of an augmentation.
    """
    fields = [field.name for field in dataclasses.fields(Augmentation)]
    for name in changes.keys() - set(fields):
        hint = f" Pass {COMMAND_NAMES[name]}." if name in COMMAND_NAMES else nearest(name, fields)
        raise ValueError(f"{name}={changes[name]}: no augmentation has this field.{hint}")
    if not isinstance(augmentation, Augmentation):
        augmentation = AUGMENTATIONS[augmentation or augmentation_for(source)]
        changes = {"size": view_size(source, augmentation), **changes}
    return dataclasses.replace(augmentation, **changes)


def pretraining(
    data: str | Path | Source,
    augmentation: str | Augmentation | None = None,
    batch_size: int = 256,
    views: int = 2,
    seed: int = 0,
    first_epoch: int = 0,
    targets: bool = False,
    local_views: int = 0,
    local_size: int | None = None,
    local_crop_area: float = 0.14,
    **changes: Any,
) -> tf.data.Dataset:
    """Batches for Keras' `fit`: iterating again gives the next epoch, not the same one.

    The dataset's length is the number of whole batches in an epoch. The `fit` of this package's models
    begins at the optimizer's step, by the dataset's attribute `stream`, which makes an endless dataset from
    any step on, and this package's callbacks evaluate as its attribute `augmentation` says. `evaluate`
    always takes epoch `first_epoch`. A dataset made from it by `map` or `take` has neither attribute.

    Args:
        data: a specification as for `open_source`, or a source.
        augmentation: a key of `AUGMENTATIONS`, of which views have the size of `view_size`, as for the
            command `pretrain`; or an `Augmentation` with its own size. Chosen by the source when None.
        batch_size: images per step.
        views: views of each image (4 for `symmetry="asymmetric_2x"`).
        seed: seed of the order of the images and of the augmentation's draws.
        first_epoch: the epoch of the first iteration, for training loops of your own.
        targets: whether batches hold "target", the labels of the images, beside "views" and "index".
        local_views: further, small views of each image, which come last (`local_views=` of SimSiam, SimCLR).
        local_size, local_crop_area: as for `Augmentation.for_local_views`.
        **changes: fields of the augmentation to replace, for example size=96.

    Raises:
        ValueError: a batch larger than the source, `targets` of a source without labels, or a change that is
            no field of an augmentation.
    """
    source = keep_decoded(open_source(data))
    augmentation = augmentation_of(source, augmentation, **changes)
    length = source.size // batch_size
    if length == 0:
        raise ValueError(
            f"A batch of {batch_size} is larger than {source.name}, which has {source.size} "
            f"images. Try batch_size={source.size} or less."
        )
    epochs = itertools.count(first_epoch)
    local = augmentation.for_local_views(local_size, local_crop_area)
    made = Views(augmentation, views, more=[local] * local_views)
    batches = StepBatches(source, made, batch_size, seed, targets=targets)

    def steps_from(first: Callable[[], int], count: int) -> tf.data.Dataset:
        def steps(_: tf.Tensor) -> tf.data.Dataset:
            start = tf.numpy_function(first, [], tf.int64)
            return batches.dataset(start, start + count)

        return with_options(tf.data.Dataset.range(1).flat_map(steps), source)

    def stream(first: Callable[[], int] = lambda: 0) -> tf.data.Dataset:
        """Batches from step `first()` on, or from `first_epoch` where that is 0, without end."""
        return steps_from(lambda: first() or first_epoch * length, ENDLESS)

    dataset: Any = steps_from(lambda: next(epochs) * length, length)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length))
    dataset.stream, dataset.augmentation = stream, augmentation
    return dataset


def evaluation_views(
    source: Source, views: Views, ids: Sequence[int] | np.ndarray, batch_size: int = 256
) -> tf.data.Dataset:
    """Batches of normalised evaluation views of the images `ids`, in their order: float32 [B, S, S, C]."""
    dataset = tf.data.Dataset.from_tensor_slices(tf.cast(ids, tf.int64))
    if source.pixels is not None:
        dataset = map_each(
            dataset.batch(batch_size), lambda i: views.evaluation_view(source.gather(i)), PARALLEL
        )
    else:
        view = lambda image, i: views.evaluation_view(image)  # noqa: E731
        dataset = map_images(dataset, source, view, PARALLEL).batch(batch_size)
    return with_options(map_each(dataset, views.normalise), source).prefetch(2)
