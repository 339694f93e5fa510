"""A pre-trained backbone together with the preprocessing of its images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.config import SourceConfig, is_encoded
from simsiam_tf.config.backbones import PIXELS, is_network
from simsiam_tf.data import AUGMENTATIONS, Augmentation, Source, Views
from simsiam_tf.data.images.render import PixelRule
from simsiam_tf.nets import whitening
from simsiam_tf.pretrained import backbone_file, hub, network_file, published, weights_address
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A backbone of a `.keras` file, and the card beside the file.

    backbone: normalised images [B, S, S, channels] → features [B, F], whitened if the file's network whitens.
    augmentation: size, normalisation and random changes of the images: those of the card, or of the
        augmentation that was chosen by name; without either, "imagenet" with the network's size and
        normalisation.
    path, sha256: path and digest of the file.
    card: metadata of the run that trained the backbone; empty where the file has no card.
    address: the address of a backbone in a cache: "hf://USER/NAME@COMMIT" on the Hub, or a URL with the
        SHA-256 of its card; None for other backbones.
    as_stored: whether `backbone` is the file's network itself, not a pooled one.
    exact: whether the features are exact; False for those of `features.fast`.
    """

    backbone: keras.Model
    augmentation: Augmentation
    path: Path
    sha256: str
    card: dict
    address: str | None = None
    as_stored: bool = True
    exact: bool = True

    @property
    def place(self) -> str:
        """The address or path by which `open_pretrained` opens the same backbone."""
        return self.address or str(self.path)

    @property
    def channels(self) -> int:
        return self.backbone.input_shape[-1]

    @property
    def features(self) -> int:
        return self.backbone.output_shape[-1]

    @property
    def views(self) -> Views:
        """Preprocessing of images: `evaluation_view` for evaluation, or one random view of each image."""
        return Views(self.augmentation, count=1)

    def prepare(self, images: Any) -> tf.Tensor:
        """uint8 images [B, H, W, C] → normalised [B, size, size, C], as for evaluation."""
        views = self.views
        return tf.stack([views.normalise(views.evaluation_view(tf.constant(image))) for image in images])

    @property
    def pixel_rule(self) -> PixelRule:
        """The rule by which the pre-training decoded images (JPEG, PNG, …) to pixels."""
        return PixelRule.from_options(self.channels, **self.card.get("pixels", {}))

    def source_options(self, config: SourceConfig, data: str) -> dict[str, Any]:
        """Arguments of `data.open_source` for `data`, by the options of a command (`options_for`)."""
        return self.options_for(data, config.source_options())

    def options_for(self, data: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `data.open_source` for `data`: `options` and, for encoded images, those of the card.

        `options` override the card's.
        """
        if not is_encoded(data):
            return {**options, "channels": self.channels}
        return {"channels": self.channels, **self.card.get("pixels", {}), **options}

    def check_channels(self, source: Source) -> None:
        """Raises UserError where images have another number of channels than the backbone takes."""
        if source.channels != self.channels:
            raise UserError(
                f"data={source.name}: has {counted(source.channels, 'channel')}, the backbone of "
                f"{self.place} takes {self.channels}. Give images with {counted(self.channels, 'channel')}."
            )


def from_pretrained(weights: str | Path, **options: Any) -> Pretrained:
    """`open_pretrained` by the name that other libraries give it."""
    return open_pretrained(weights, **options)


def open_pretrained(
    weights: str | Path,
    augmentation: str = "auto",
    image_size: int | None = None,
    pixels: str = "auto",
    trust_code: bool = False,
    finished: bool = True,
) -> Pretrained:
    """Opens the backbone of a finished work folder, of a .keras file or of a library of networks.

    It computes in `keras.config.dtype_policy()`.

    Args:
        weights: the folder, or one that `export` wrote for the Hub; or the file; "hf://USER/NAME" (the newest
            commit) or "hf://USER/NAME@REVISION" (a branch, tag or commit) on the Hugging Face Hub;
            "https://HOST/NAME.json#sha256=HEX", a card with its SHA-256, beside which NAME.keras lies
            (`weights_address`); or a network of a library, such as "hub:PRESET" or "keras:NAME+imagenet",
            which is first copied into a work folder (`published.results_folder`).
        augmentation: a key of `AUGMENTATIONS`; "auto": the pre-training's, by the card.
        image_size: side of the images in pixels; the augmentation's when None.
        pixels: how the network takes pixels, a key of `PIXELS`; "auto": by the card, else as the network of
            keras.applications that it is recognised as.
        trust_code: run code that a file names, from a person you trust.
        finished: whether to keep the last layers of an exported backbone, which read and whiten features;
            then the default size is the one that they read. False: the backbone as it was trained, to train
            it further or to evaluate it by the paper's protocol.

    Raises:
        UserError: as `load_backbone` and `weights_address.local_path`; the network is no backbone; or
            neither a card nor the arguments say how it takes pixels.
    """
    hub.download.cache_clear()
    weights = str(weights)
    with progress.announced(f"opening the weights of {printable_text(weights)}"):
        if is_network(weights):
            weights = str(published.import_network(weights, pixels, trust_code))
            pixels = "auto"  # recorded in the copy's card
        backbone = stored = backbone_file.load_backbone(weights, trust_code, finished)
    path = backbone_file.backbone_path(weights)
    card = backbone_file.read_card(weights)
    if len(backbone.inputs) != 1 or len(backbone.input_shape) != 4:
        raise UserError(
            f"weights={weights}: is not a backbone: it maps {backbone.input_shape} to "
            f"{backbone.output_shape}, not images [B, H, W, C] to features [B, F]."
        )
    fixed_size = backbone.input_shape[1]
    if augmentation != "auto":
        chosen = AUGMENTATIONS[augmentation]
    elif "views" in card and pixels == "auto":
        chosen = _augmentation_of_card(card["views"], path)
    else:
        scale = network_file.pixel_scale(backbone, str(path), pixels)
        backbone = network_file.as_backbone(backbone, scale)
        size = fixed_size or published.SIZE
        chosen = dataclasses.replace(AUGMENTATIONS["imagenet"], size=size, mean=scale.mean, std=scale.std)
    if len(backbone.output_shape) != 2:
        raise UserError(
            f"weights={weights}: is not a backbone: it gives {backbone.output_shape}, not features [B, F]. "
            f"With pixels={', '.join(PIXELS)}, as its network takes them, its maps are averaged."
        )
    read_size = backbone_file.card_entries(card, "finishing").get("size") if finished else None
    chosen = dataclasses.replace(chosen, size=image_size or _as_size(read_size) or chosen.size)
    if chosen.size != read_size and whitening.reads_quarters(backbone):
        backbone = _finish_for_size(backbone, chosen.size, weights)
    if fixed_size not in (None, chosen.size):
        raise UserError(
            f"weights={weights}: takes images of {fixed_size} pixels, not of {chosen.size}. Pass "
            f"image_size={fixed_size}."
        )
    address = weights_address.pinned_address(weights) if weights_address.is_address(weights) else None
    as_stored = backbone is stored
    return Pretrained(backbone, chosen, path, backbone_file.sha256(path), card, address, as_stored)


def _as_size(value: Any) -> int | None:
    """A number of pixels that a card holds; None for anything else."""
    return value if type(value) is int and 0 < value <= backbone_file.MAX_READ_SIZE else None


def _finish_for_size(backbone: keras.Model, size: int, weights: str) -> keras.Model:
    """A network that reads quarters, changed to read images of another size, in pixels."""
    try:
        return whitening.finish_like(backbone, whitening.without_whitening(backbone), size)
    except ValueError as error:
        raise UserError(
            f"image_size={size}: does not suit the last layers of weights={weights}, which whiten: {error} "
            "Pass a size nearer to that of its card."
        ) from error


def _augmentation_of_card(views: Any, path: Path) -> Augmentation:
    """The augmentation in a card: views is JSON of `dataclasses.asdict`. path: the backbone's file.

    Raises:
        UserError: the card holds no augmentation.
    """
    values: dict[str, Any] = {}
    try:
        for field in dataclasses.fields(Augmentation):
            value, types = views[field.name], (int,) if field.name == "size" else (int, float)
            numbers = value if isinstance(value, list) else [value]
            is_tuple, per_view = isinstance(field.default, tuple), field.name in ("blur_p", "solarize_p")
            fits = is_tuple or per_view if isinstance(value, list) else not is_tuple
            if not fits or not numbers or not all(type(n) in types and math.isfinite(n) for n in numbers):
                raise TypeError(f"{field.name} is {value!r}"[:100])
            values[field.name] = tuple(value) if isinstance(value, list) else value
    except (KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f'{path.with_suffix(".json")}: its "views" are not an augmentation '
            f"({printable_text(str(error))}). Pass `augmentation` and `image_size`."
        ) from error
    return Augmentation(**values)
