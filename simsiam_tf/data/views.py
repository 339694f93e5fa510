"""Recipes: which augmentation a data set gets, and how a table of draws becomes views."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simsiam_tf.data import augment

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of an augmentation, in the order in which they apply (Sec. 3; App. D)."""

    size: int = 224
    area: tuple[float, float] = (0.2, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_p: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


RECIPES = {
    "imagenet": Recipe(),
    "cifar": Recipe(size=32, blur_p=0.0, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)),
    # One channel: brightness and contrast are what remains of the jitter.
    "grayscale": Recipe(size=28, gray_p=0.0, blur_p=0.0, mean=(0.286,), std=(0.353,)),
}  # fmt: skip


class Views:
    """Turns images and uniforms into views, in two stages.

    `crop` runs on the host and gives uint8; `finish` takes whole batches and may run anywhere.

    Args:
        recipe: the augmentation.
        count: views of each image, 2 or 4.
    """

    def __init__(self, recipe: Recipe, count: int = 2) -> None:
        self.recipe, self.count = recipe, count
        self.resized_crop = augment.RandomResizedCrop(recipe.size, recipe.area)
        layers = [
            (recipe.jitter_p, augment.RandomColorJitter(*recipe.jitter, p=recipe.jitter_p)),
            (recipe.gray_p, augment.RandomGrayscale(recipe.gray_p)),
            (recipe.blur_p, augment.RandomGaussianBlur(recipe.blur_sigma, recipe.blur_p)),
            (recipe.flip_p, augment.RandomHorizontalFlip(recipe.flip_p)),
        ]
        self.layers = [layer for p, layer in layers if p > 0]

    @property
    def draws(self) -> int:
        """Uniforms per image, for all its views."""
        return self.count * self._per_view

    @property
    def _per_view(self) -> int:
        return self.resized_crop.draws + sum(layer.draws for layer in self.layers)

    def _columns(self, u: tf.Tensor, view: int) -> tf.Tensor:
        return u[..., view * self._per_view : (view + 1) * self._per_view]

    def crop(self, images: tf.Tensor, u: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Host stage for a batch of one size: uint8 [B, H, W, C] → `count` × [B, S, S, C]."""
        layer = self.resized_crop
        crops = []
        for view in range(self.count):
            t = layer.transformations(self._columns(u, view)[:, : layer.draws], images)
            crops.append(_to_uint8(layer.augment_images(images, t)))
        return tuple(crops)

    def crop_one(self, image: tf.Tensor, u: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Host stage for one image of any size: uint8 [H, W, C] → `count` × [S, S, C]."""
        layer = self.resized_crop
        shape = tf.shape(image)
        crops = []
        for view in range(self.count):
            columns = self._columns(u, view)[None, : layer.draws]
            box = layer.boxes(columns, shape[0], shape[1])[0]
            crop = _to_uint8(layer.crop_one(image, box))
            crops.append(tf.ensure_shape(crop, [layer.size, layer.size, image.shape[-1]]))
        return tuple(crops)

    def finish(self, crops: tuple[tf.Tensor, ...], u: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Batch stage: uint8 crops → float32 views, normalised by the recipe's mean and std."""
        views = []
        for view, crop in enumerate(crops):
            x = tf.cast(crop, tf.float32)
            at = self.resized_crop.draws
            columns = self._columns(u, view)
            for layer in self.layers:
                t = layer.transformations(columns[:, at : at + layer.draws], x)
                x = layer.augment_images(x, t)
                at += layer.draws
            views.append(self.normalise(x))
        return tuple(views)

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """[0, 255] → zero mean and unit variance by the recipe's statistics."""
        channels = images.shape[-1]
        mean, std = (_for_channels(v, channels) for v in (self.recipe.mean, self.recipe.std))
        return (tf.cast(images, tf.float32) / 255.0 - mean) / std

    def denormalise(self, images: tf.Tensor) -> tf.Tensor:
        """The way back, to uint8: for pictures of what the network sees."""
        channels = images.shape[-1]
        mean, std = (_for_channels(v, channels) for v in (self.recipe.mean, self.recipe.std))
        return _to_uint8((images * std + mean) * 255.0)

    def centre(self, image: tf.Tensor) -> tf.Tensor:
        """The view of evaluation: shorter side to 256/224 of the size, then the centre.

        [H, W, C] or [B, H, W, C] → uint8 of the recipe's size. Small images, those of at most
        64 pixels, are only resized.
        """
        size = self.recipe.size
        height, width = tf.unstack(tf.shape(image)[-3:-1])
        if size <= 64:
            return _to_uint8(tf.image.resize(image, [size, size], antialias=True))
        scale = (size * 256 / 224) / tf.cast(tf.minimum(height, width), tf.float32)
        new = [tf.cast(tf.round(tf.cast(n, tf.float32) * scale), tf.int32) for n in (height, width)]
        image = tf.image.resize(image, new, antialias=True)
        return _to_uint8(tf.image.resize_with_crop_or_pad(image, size, size))


def _for_channels(values: tuple[float, ...], channels: int) -> tf.Tensor:
    if len(values) == channels:
        return tf.constant(values)
    return tf.fill([channels], sum(values) / len(values))


def _to_uint8(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8)
