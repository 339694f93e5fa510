"""The augmentation of a data set or a method, and how a table of draws becomes views."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable

import tensorflow as tf

from simsiam_tf.data.augment import crops, planar_ops, random_layers
from simsiam_tf.runtime.devices import on_cpu

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


SMALL = 64  # pixels; the sides of views up to which they are treated as those of small images


PerView = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The numbers of an augmentation, in the order in which they apply (Sec. 3; App. D).

    area: smallest and largest share of the image that a crop covers. jitter: strengths of brightness,
    contrast, saturation and hue. Names that end in _p: probabilities. blur_p and solarize_p may be
    tuples with a value for each view; further views count on from the first.
    """

    size: int = 224
    area: tuple[float, float] = (0.2, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: PerView = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: PerView = 0.0
    flip_p: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def of_view(self, view: int) -> Augmentation:
        """The augmentation of one view, counted from 0: every probability a number."""
        values = {name: getattr(self, name) for name in ("blur_p", "solarize_p")}
        own = {name: v[view % len(v)] for name, v in values.items() if isinstance(v, tuple)}
        return dataclasses.replace(self, **own)

    def with_crop_and_flip_alone(self) -> Augmentation:
        """The same without jitter, gray, blur and solarisation: the views of linear evaluation (Sec. 3)."""
        return dataclasses.replace(self, jitter_p=0.0, gray_p=0.0, blur_p=0.0, solarize_p=0.0)


AUGMENTATIONS = {
    "imagenet": Augmentation(),
    # The augmentations of the compared methods' own papers, which Sec. 6.1 takes over.
    # SimCLR (arXiv 2002.05709, App. A) and SwAV (2006.09882, Sec. 4 and App. A):
    "simclr": Augmentation(area=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2)),
    # BYOL (2006.07733, Table 6): blur and solarisation differ between the two views.
    "byol": Augmentation(
        area=(0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=(1.0, 0.1), solarize_p=(0.0, 0.2)
    ),
    "cifar": Augmentation(size=32, blur_p=0.0, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)),
    # One channel: brightness and contrast are what remains of the jitter.
    "grayscale": Augmentation(size=28, gray_p=0.0, blur_p=0.0, mean=(0.286,), std=(0.353,)),
}  # fmt: skip


class Views:
    """Turns images and uniforms into views, in two stages.

    `crop` runs on the host and gives uint8; `finish` takes whole batches and may run anywhere.

    Args:
        augmentation: the augmentation.
        count: views of each image, 2 or 4.
        xla: whether XLA compiles the batch stage; None: where views are large. On a CPU it
            then runs in a tenth of the time, but every iterator begins with compiling.
    """

    def __init__(self, augmentation: Augmentation, count: int = 2, xla: bool | None = None) -> None:
        self.augmentation, self.count = augmentation, count
        self.xla = augmentation.size > SMALL if xla is None else xla
        self.resized_crop = random_layers.RandomResizedCrop(augmentation.size, augmentation.area)
        # Matrix units of GPUs and TPUs would round the factors, and there shifted sums are quick.
        products = augmentation.size <= SMALL and not self.xla and on_cpu()
        recipes = [augmentation.of_view(view) for view in range(count)]
        made = {own: _layers(own, products) for own in recipes}  # equal views share what XLA compiles
        self.layers = [made[own] for own in recipes]
        widths = [self.resized_crop.draws + sum(layer.draws for layer in own) for own in self.layers]
        self._ends = list(itertools.accumulate(widths, initial=0))

    @property
    def draws(self) -> int:
        """Uniforms per image, for all its views."""
        return self._ends[-1]

    def _columns(self, u: tf.Tensor, view: int) -> tf.Tensor:
        return u[..., self._ends[view] : self._ends[view + 1]]

    def crop(self, images: tf.Tensor, u: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Host stage for a batch of one size: uint8 [B, H, W, C] → `count` × [B, S, S, C]."""
        layer = self.resized_crop
        made = []
        for view in range(self.count):
            t = layer.transformations(self._columns(u, view)[:, : layer.draws], images)
            made.append(_to_uint8(layer.augment_images(images, t)))
        return tuple(made)

    def candidates(self, u: tf.Tensor) -> dict[str, tf.Tensor]:
        """u [B, draws] → what `crop_one` needs of it, with leading axis B."""
        layer = self.resized_crop
        drawn = [self._columns(u, view)[:, : layer.draws] for view in range(self.count)]
        return {
            "tried": tf.stack([layer.candidates(d) for d in drawn], axis=1),
            "place": tf.stack([d[:, -2:] for d in drawn], axis=1),
        }

    def crop_one(self, image: tf.Tensor, drawn: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """Host stage for one image of any size: uint8 [H, W, C] → `count` × [S, S, C].

        drawn: the image's row of `candidates`.
        """
        layer = self.resized_crop
        height, width, _ = tf.unstack(tf.shape(image))
        boxes = layer.boxes(drawn["place"], height, width, drawn["tried"])
        made = []
        for view in range(self.count):
            crop = _to_uint8(layer.crop_one(image, boxes[view]))
            made.append(tf.ensure_shape(crop, [layer.size, layer.size, image.shape[-1]]))
        return tuple(made)

    def finish(self, crops: tuple[tf.Tensor, ...], u: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Batch stage: uint8 crops → float32 views, normalised by the augmentation's mean and std."""
        return tuple(self._finish(crop, u, view) for view, crop in enumerate(crops))

    def _finish(self, crop: tf.Tensor, u: tf.Tensor, view: int) -> tf.Tensor:
        u, at, drawn = self._columns(u, view), self.resized_crop.draws, []
        for layer in self.layers[view]:
            drawn.append(layer.transformations(u[:, at : at + layer.draws], crop))
            at += layer.draws
        x = crop
        for part in self._parts(crop.shape[-1], self.layers[view]):
            x = part(x, drawn)
        return x

    @functools.cache  # noqa: B019 - views live as long as the program
    def _parts(self, channels: int, layers: tuple[random_layers.PaperLayer, ...]) -> list[Callable]:
        """The batch stage of a view in passes over memory: (crop, …, transformations) → …, view.

        The first one also unpacks the crop, the last one normalises and packs the view.
        """
        steps = [
            functools.partial(_on_layer, stage, place)
            for place, layer in enumerate(layers)
            for stage in layer.stages(channels)
        ]
        parts = [[step] for step in steps] or [[]]
        parts[0] = [_unpack, *parts[0]]
        parts[-1] = [*parts[-1], self._pack]
        chained = [functools.partial(_chain, part) for part in parts]
        return (
            [tf.function(part, jit_compile=True, autograph=False) for part in chained]
            if self.xla
            else chained
        )

    def _pack(self, x: planar_ops.Planes, drawn: list[dict]) -> tf.Tensor:
        del drawn
        return self.normalise(planar_ops.to_images(x))

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """[0, 255] → zero mean and unit variance by the augmentation's statistics."""
        channels = images.shape[-1]
        mean, std = (_for_channels(v, channels) for v in (self.augmentation.mean, self.augmentation.std))
        return (tf.cast(images, tf.float32) / 255.0 - mean) / std

    def denormalise(self, images: tf.Tensor) -> tf.Tensor:
        """The way back, to uint8: for pictures of what the network sees."""
        channels = images.shape[-1]
        mean, std = (_for_channels(v, channels) for v in (self.augmentation.mean, self.augmentation.std))
        return _to_uint8((images * std + mean) * 255.0)

    def centre(self, image: tf.Tensor) -> tf.Tensor:
        """The view of evaluation: shorter side to 256/224 of the size, then the centre (Sec. 3).

        [H, W, C] or [B, H, W, C] → uint8 of the augmentation's size, as torchvision's Resize and CenterCrop
        compute it. Small views are only resized.
        """
        size = self.augmentation.size
        if image.shape[-3:-1] == (size, size) and size <= SMALL:
            return tf.cast(image, tf.uint8)
        batch = image if image.shape.rank == 4 else image[None]
        made = crops.centre(batch, sides_before_centre(*tf.unstack(tf.shape(batch)[1:3]), size), size)
        return made if image.shape.rank == 4 else made[0]


def sides_before_centre(height: tf.Tensor, width: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Sides that an image is resized to before its middle size × size pixels are taken, int32."""
    if size <= SMALL:
        return tf.constant(size), tf.constant(size)
    return crops.resized_sides(height, width, round(size * 256 / 224))


def _layers(augmentation: Augmentation, products: bool) -> tuple[random_layers.PaperLayer, ...]:
    """The layers of the batch stage, of one view; those that never act are left out."""
    layers = (
        (
            augmentation.jitter_p,
            random_layers.RandomColorJitter(*augmentation.jitter, p=augmentation.jitter_p),
        ),
        (augmentation.gray_p, random_layers.RandomGrayscale(augmentation.gray_p)),
        (
            augmentation.blur_p,
            random_layers.RandomGaussianBlur(augmentation.blur_sigma, augmentation.blur_p, products),
        ),
        (augmentation.solarize_p, random_layers.RandomSolarization(augmentation.solarize_p)),
        (augmentation.flip_p, random_layers.RandomHorizontalFlip(augmentation.flip_p)),
    )
    return tuple(layer for p, layer in layers if p > 0)


def _unpack(crop: tf.Tensor, drawn: list[dict]) -> planar_ops.Planes:
    del drawn
    return planar_ops.from_images(crop)


def _on_layer(
    stage: random_layers.Stage, place: int, x: planar_ops.Planes, drawn: list[dict]
) -> planar_ops.Planes:
    return stage(x, drawn[place])


def _chain(steps: list[Callable], x: tf.Tensor | planar_ops.Planes, drawn: list[dict]):  # noqa: ANN202
    for step in steps:
        x = step(x, drawn)
    return x


def _for_channels(values: tuple[float, ...], channels: int) -> tf.Tensor:
    if len(values) == channels:
        return tf.constant(values)
    return tf.fill([channels], sum(values) / len(values))


def _to_uint8(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8)
