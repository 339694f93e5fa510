"""The option `recipe=auto`: chooses options of a run from its images and its machine, and says why.

docs/recipes.md has the experiment behind each rule. A rule applies to options that are not given.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from simsiam_tf.config import PretrainConfig
from simsiam_tf.config.backbones import is_network, is_published
from simsiam_tf.config.fields import default
from simsiam_tf.data import Source
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.decoded import MAX_SIDE, sizes_differ
from simsiam_tf.nets import Description
from simsiam_tf.recipes.budget import MIN_KNN_IMAGES

SMALL_SIDE = 64  # pixels: images of this side or less are small
NETWORK_VIEW = 64  # pixels of the views of networks of other libraries, and of the imagenet stem, on a CPU
READ_SIZES = (128, 224)  # pixels at which networks with published weights read small and larger images
MINUTES = 30.0  # minutes of a run for which neither `minutes` nor `epochs` is given
MAX_FINAL_IMAGES = 12_000  # images of the final evaluation, where nothing is trained
KNN_IMAGES_A_MINUTE = 1000  # images of the monitor for each minute of the run, at most
FEW_IMAGES = 2048  # sets of fewer images get batches of fewer than 256
MAX_DECODED_BYTES = 2**31  # of images that are kept decoded
RULED_OPTIONS = (  # the options that rules choose
    "backbone", "width", "stem", "image_size", "read_size", "decoded_size", "augmentation", "crop_area",
    "jitter", "method", "batch_size", "temperature", "d", "base_lr", "weight_decay", "predictor_lr",
    "predictor_lr_factor", "projector_layers", "epochs", "minutes", "knn_images",
    "final_images",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Facts:
    """The properties of the images and the machine that the rules depend on.

    images: number of images.
    side: median of the images' shorter sides in pixels; None: unknown.
    channels: channels of an image.
    accelerator: whether there is a GPU or TPU.
    decoded_each_epoch: whether every epoch decodes the images again unless `decoded_size` is given, because
        they differ in size or are large.
    network: the images that the backbone takes, if it is a network of another library.
    """

    images: int
    side: int | None
    channels: int
    accelerator: bool
    decoded_each_epoch: bool = False
    network: Description = dataclasses.field(default_factory=Description)

    def __str__(self) -> str:
        kind = {1: "gray", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        side = f", {self.side} pixels" if self.side else ""
        machine = "a GPU or TPU" if self.accelerator else "CPU cores"
        return f"{self.images:,} {kind} images{side}; {machine}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value that a rule chooses for an option, with the reason in words."""

    option: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"--{self.option}={self.value}".ljust(28) + self.reason


METHOD = Choice("method", "simclr", "does not lose dimensions, as SimSiam did on one set of three")


def read_facts(source: Source, accelerator: bool, network: Description | None = None) -> Facts:
    """The facts of a run; those of its images by their headers or pixels.

    accelerator, network: as in `Facts`.
    """
    side, each_epoch, headers = None, False, getattr(source, "headers", None)
    if headers is not None:
        assert isinstance(source, EncodedSource)
        longest = max(headers[name].max(initial=0) for name in ("width", "height"))
        each_epoch = sizes_differ(source) or bool(longest > MAX_SIDE)
        side = int(np.median(np.minimum(headers["width"], headers["height"])))
    elif source.pixels is not None:
        side = min(source.pixels.shape[1:3])
    return Facts(source.size, side, source.channels, accelerator, each_epoch, network or Description())


def choose(config: PretrainConfig, facts: Facts) -> tuple[PretrainConfig, list[Choice]]:
    """(the configuration with the options that the rules choose, these choices).

    Rules choose only options that are free: that have their default, and that `config.given` does not name.
    """
    trains = not (config.trains_nothing or _uses_published_weights(config, facts))
    choices = _training(config, facts) if trains else _without_training(config, facts)
    choices = [choice for choice in choices if config.is_free(choice.option)]
    first = {choice.option: choice for choice in reversed(choices)}
    choices = [choice for choice in choices if first[choice.option] is choice]  # of two rules, the first
    values = {choice.option: choice.value for choice in choices}
    return dataclasses.replace(config, **values, recipe="none", given=""), choices


def _uses_published_weights(config: PretrainConfig, facts: Facts) -> bool:
    """Whether published weights are used as they are: on a CPU, without a given time or number of epochs."""
    is_free = all(map(config.is_free, ("epochs", "minutes")))
    return is_free and not facts.accelerator and is_published(config.backbone)


def _without_training(config: PretrainConfig, facts: Facts) -> list[Choice]:
    reason = "training published weights on a CPU gained nothing; --minutes=N trains"
    choices = [Choice("epochs", 0.0, reason), *_reading(config, facts, "image_size")]
    if facts.images > MAX_FINAL_IMAGES and config.monitor != "none":
        choices.append(Choice("final_images", MAX_FINAL_IMAGES, "enough to compare with raw pixels"))
    return choices


def _training(config: PretrainConfig, facts: Facts) -> list[Choice]:
    """The choices for a run that trains, in the order in which they are printed."""
    method = METHOD if config.is_free("method") else Choice("method", config.method, "")
    has_weights = bool(config.weights) or is_published(config.backbone)
    choices = [Choice("base_lr", 0.05, "keeps what the weights know; not measured")] if has_weights else []
    choices += [*_network(config, facts), *_views(config, facts), *_reading(config, facts, "read_size")]
    choices += [method, *_method_options(method.value, facts)]
    if config.is_free("epochs"):
        choices.append(Choice("minutes", MINUTES, "neither --minutes nor --epochs was given"))
    knn_images = int(KNN_IMAGES_A_MINUTE * (config.minutes or MINUTES))
    if knn_images < config.knn_images and config.monitor != "none":
        knn_images = max(knn_images, MIN_KNN_IMAGES)
        choices.append(Choice("knn_images", knn_images, "leaves most of the time to the training"))
    return choices


def _reading(config: PretrainConfig, facts: Facts, option: str) -> list[Choice]:
    """The size at which a network with published weights reads images, as a choice for `option`."""
    if not is_published(config.backbone) or facts.network.fixed_size or config.finish == "none":
        return []
    if facts.network.keeps_size and facts.network.size:
        return [Choice(option, facts.network.size, "the size that these weights read in their own run")]
    small, large = READ_SIZES
    size = large if facts.side and facts.side > small else small
    return [Choice(option, max(size, facts.network.smallest), "published weights read more in larger images")]


def recall_choices(config: PretrainConfig, before: dict[str, Any] | None) -> PretrainConfig:
    """Takes over the options that the rules chose for the earlier run in `workdir`, with recipe=auto.

    before: the description of the earlier run (`Workdir.description`); None for a new folder.
    """
    if config.recipe == "none" or before is None:
        return config
    values = {name: before[name] for name in RULED_OPTIONS if name in before and config.is_free(name)}
    if values.get("epochs") or not config.is_free("minutes"):
        for name in ("epochs", "final_images"):  # `minutes` chose these: see `budget.recall_epochs`
            values.pop(name, None)
    return dataclasses.replace(config, **values, recipe="none", given="")


def _network(config: PretrainConfig, facts: Facts) -> list[Choice]:
    if is_network(config.backbone) or config.weights:
        return []
    if facts.accelerator:
        return [Choice("backbone", "resnet18", "fits any GPU; not measured")]
    if config.backbone != default(PretrainConfig, "backbone"):
        return []
    return [
        Choice("backbone", "resnet10", "more steps in the time of a CPU"),
        Choice("width", 0.5, "more steps in the time of a CPU"),
        Choice("stem", "small", "for views of at most 64 pixels"),
    ]


def _views(config: PretrainConfig, facts: Facts) -> list[Choice]:
    other_library = is_network(config.backbone)
    least = facts.network.smallest if other_library else 8
    most = max(least, NETWORK_VIEW) if other_library or config.stem == "imagenet" else 32
    size, reason = most, "more steps; the trained network reads images at twice the size"
    if facts.side and facts.side <= SMALL_SIDE:
        size = min(most, max(least, facts.side))
    elif facts.accelerator:
        size, reason = 128, "not measured"
    keeps_size = other_library and (facts.network.fixed_size or facts.accelerator)
    sizes = [] if keeps_size else [Choice("image_size", size, reason)]
    view = config.image_size or (None if keeps_size else size)
    memory = facts.images * (2 * (view or 0)) ** 2 * facts.channels
    if facts.decoded_each_epoch and view and memory <= MAX_DECODED_BYTES and not config.data_service:
        sizes.append(Choice("decoded_size", 2 * view, "decodes each image once, not once an epoch"))
    crop = Choice("crop_area", 0.2, "smaller crops teach more than milder ones, given the steps")
    if facts.channels not in (1, 3):
        return [*sizes, Choice("augmentation", "multichannel", "these channels are no colours"), crop]
    return [
        *sizes,
        Choice("augmentation", "imagenet", "all changes of SimSiam's views"),
        crop,
        Choice("jitter", 0.4, "the paper's"),
    ]


def _method_options(method: str, facts: Facts) -> list[Choice]:
    """The batch size, and the options that were measured for the method."""
    batch = min(256, 2 ** max(4, (facts.images // 8).bit_length() - 1)) if facts.images < FEW_IMAGES else 256
    batch = min(batch, 2 ** (max(facts.images, 2).bit_length() - 1))
    common = [Choice("batch_size", batch, "few images" if batch < 256 else "as measured")]
    if method == "simclr":
        return [
            *common,
            Choice("temperature", 0.2, "milder than SimCLR's 0.1"),
            Choice("d", 128, "SimCLR's"),
            Choice("base_lr", 0.3, "SimCLR's"),
            Choice("weight_decay", 1e-4, "as measured"),
        ]
    if method == "simsiam":
        return [
            *common,
            Choice("base_lr", 0.8, "the paper's 0.05 is for hundreds of epochs"),
            Choice("predictor_lr", "constant", "Table 1 (c)"),
            Choice("predictor_lr_factor", 10.0, "a fast predictor learns more in few steps"),
            Choice("d", 256, "as the quickstart"),
            Choice("projector_layers", 2, "as the quickstart"),
            Choice("weight_decay", 3e-4, "as the quickstart"),
        ]
    return common
