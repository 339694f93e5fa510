"""From a table of draws to views: the layers of an augmentation, in order."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from simsiam_tf.data.augment import random_layers
from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.crops import RandomResizedCrop
from simsiam_tf.data.augment.eval_transform import SMALL, resize_and_crop
from simsiam_tf.data.augment.keras_cv_layer import PaperLayer, to_planes
from simsiam_tf.runtime.devices import on_cpu


class Views:
    """Turns images and uniforms into views, in two stages.

    The first stage crops on the host and gives uint8; the second, `augment`, takes batches and may run
    anywhere.

    Args:
        augmentation: the augmentation.
        count: views of each image by it: 2 or 4 in pre-training, 1 in supervised training.
        xla: whether XLA compiles the second stage; None: for views larger than `SMALL`. With XLA the
            stage takes a tenth of the time on a CPU, but every iterator compiles it first.
        more: augmentations of further views, which may have another size.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        count: int = 2,
        xla: bool | None = None,
        more: Sequence[Augmentation] = (),
    ) -> None:
        self.augmentation, self.count = augmentation, count + len(more)
        self.xla = augmentation.size > SMALL if xla is None else xla
        self.each = [augmentation.for_view(view) for view in range(count)]  # augmentations of the views
        self.each += [a.for_view(view) for view, a in enumerate(more)]
        self.resized_crops = [RandomResizedCrop(a.size, a.area) for a in self.each]
        # NOTE: blur by products is for CPUs: GPUs and TPUs round the factors, and are fast at shifted sums.
        products = augmentation.size <= SMALL and not self.xla and on_cpu()
        layers_for = functools.cache(functools.partial(_layers, products=products))
        self.layers = [layers_for(a) for a in self.each]  # equal views share
        widths = [RandomResizedCrop.draws + sum(layer.draws for layer in layers) for layers in self.layers]
        # draws: uniforms per image for all views. _starts: the first column of each view.
        *self._starts, self.draws = itertools.accumulate(widths, initial=0)

    def _crop_draws(self, u: tf.Tensor) -> list[tf.Tensor]:
        """The columns of u [B, draws] that the crop of each view takes."""
        return [u[:, start : start + RandomResizedCrop.draws] for start in self._starts]

    def crop_batch(
        self, images: tf.Tensor, u: tf.Tensor, sizes: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, ...]:
        """First stage for a batch of images of one size: uint8 [B, H, W, C] → a [B, S, S, C] of each view.

        sizes: the sizes [B, 2] that the images had before they were resized to this one. The crops are those
        of the images as they were, but for what resizing has blurred.
        """
        crops, size = zip(self.resized_crops, self._crop_draws(u), strict=True), tf.shape(images)[1:3]
        views = []
        for crop, draws in crops:
            height, width = tf.unstack(size if sizes is None else sizes, axis=-1)
            boxes = crop.boxes(crop.tried_sides(draws), draws[:, -2:], height, width)
            if sizes is not None:
                boxes *= tf.tile(tf.cast(size, tf.float32) / sizes, [1, 2])
            views.append(_to_uint8(crop.augment_images(images, {"boxes": boxes})))
        return tuple(views)

    def box_draws(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """u [B, draws] → for `crop_image`: sides to try [B, count, 10, 2] and places [B, count, 2]."""
        draws = self._crop_draws(u)
        tried = [crop.tried_sides(d) for crop, d in zip(self.resized_crops, draws, strict=True)]
        return tf.stack(tried, axis=1), tf.stack([d[:, -2:] for d in draws], axis=1)

    def crop_image(self, image: tf.Tensor, tried: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """First stage for one image of any size: uint8 [H, W, C] → an [S, S, C] for each view.

        tried, place: the image's rows of `box_draws`.
        """
        boxes = self.resized_crops[0].boxes(tried, place, *tf.unstack(tf.shape(image)[:2]))
        crops = zip(self.resized_crops, tf.unstack(boxes), strict=True)
        return tuple(_to_uint8(crop.crop_of_one(image, box)) for crop, box in crops)

    def augment(self, crops: tuple[tf.Tensor, ...], u: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Second stage: uint8 crops → float32 views, normalised by the augmentation's mean and std."""
        return tuple(self._augment_view(crop, u, view) for view, crop in enumerate(crops))

    def _augment_view(self, crop: tf.Tensor, u: tf.Tensor, view: int) -> tf.Tensor:
        column, drawn = self._starts[view] + RandomResizedCrop.draws, []
        for layer in self.layers[view]:
            drawn.append(layer.transformations(u[:, column : column + layer.draws], crop))
            column += layer.draws
        x = crop
        for run in self._passes(crop.shape[-1], self.layers[view]):
            x = run(x, drawn)
        return x

    @functools.cache  # noqa: B019 - views live as long as the program
    def _passes(self, channels: int, layers: tuple[PaperLayer, ...]) -> list[Callable[..., Any]]:
        """The second stage of a view as functions (x, transformations) → x, each one pass over memory.

        The first takes the crop, the last returns the normalised view; between them, x is planes.
        """
        stages = [(place, stage) for place, layer in enumerate(layers) for stage in layer.stages(channels)]
        last = max(0, len(stages) - 1)

        def run(k: int, x: Any, drawn: list[dict[str, tf.Tensor]]) -> Any:
            x = x if k else to_planes(x)
            if stages:
                place, stage = stages[k]
                x = stage(x, drawn[place])
            return self.normalise(tf.stack(x, axis=-1)) if k == last else x

        passes: list[Callable[..., Any]] = [functools.partial(run, k) for k in range(last + 1)]
        return [tf.function(p, jit_compile=True, autograph=False) for p in passes] if self.xla else passes

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """[0, 255] → zero mean and unit variance by the augmentation's statistics."""
        mean, std = self.augmentation.statistics(images.shape[-1])
        return (tf.cast(images, tf.float32) / 255.0 - mean) / std

    def denormalise(self, images: tf.Tensor) -> tf.Tensor:
        """The inverse of `normalise`, to uint8: for pictures of what the network sees."""
        mean, std = self.augmentation.statistics(images.shape[-1])
        return _to_uint8((images * std + mean) * 255.0)

    def evaluation_view(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes the shorter side to 256/224 of the augmentation's size and takes the middle (Sec. 3).

        [H, W, C] or [B, H, W, C] → uint8 of the augmentation's size. Up to the size `SMALL`, images are only
        resized.
        """
        size = self.augmentation.size
        if image.shape[-3:-1] == (size, size) and size <= SMALL:
            return tf.cast(image, tf.uint8)
        if image.shape.rank == 4:
            return resize_and_crop(image, size)
        return resize_and_crop(image[None], size)[0]


def _layers(augmentation: Augmentation, products: bool) -> tuple[PaperLayer, ...]:
    """The layers of one view's second stage; those that never act are left out."""
    a: Any = augmentation  # of one view: every probability a number
    layers = (
        random_layers.RandomColorJitter(*a.jitter, p=a.jitter_p),
        random_layers.RandomGrayscale(a.gray_p),
        random_layers.RandomGaussianBlur(a.blur_sigma, a.blur_p, products),
        random_layers.RandomSolarization(a.solarize_p),
        random_layers.RandomHorizontalFlip(a.flip_p),
        random_layers.RandomVerticalFlip(a.vertical_flip_p),
        random_layers.RandomQuarterTurn(a.rotate_p),
    )
    return tuple(layer for layer in layers if layer.p > 0)


def _to_uint8(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8)
