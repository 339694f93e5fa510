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

SMALL_IMAGE = 64  # pixels
NETWORK_VIEW = 64  # pixels of the views of networks of other libraries, and of the imagenet stem, on a CPU
READ_SIZES = (128, 224)  # pixels at which networks with published weights read small and larger images
MINUTES = 30.0
JUDGED = 12_000  # images of the final evaluation, where nothing is trained
MONITORED_A_MINUTE = 1000  # images of the monitor, at most
FEW_IMAGES = 2048
MOST_BYTES = 2**31  # of images that are kept decoded
CHOSEN = (  # the options that rules choose
    "backbone", "width", "stem", "image_size", "read_size", "decoded_size", "augmentation", "crop_area",
    "jitter", "method", "batch_size", "temperature", "d", "base_lr", "weight_decay", "predictor_lr",
    "predictor_lr_factor", "projector_layers", "epochs", "minutes", "knn_images",
    "final_images",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the rules look at.

    images: their number. side: median of their shorter sides in pixels; None where it is not known. channels:
    of an image. accelerator: whether there is a GPU or TPU. decoded_each_epoch: whether an image is
    decoded once an epoch, as it is where images differ in size or are large, unless `decoded_size` is
    given. network: the images that the backbone takes, where it is of another library.
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
    """A value for an option, and why."""

    option: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"--{self.option}={self.value}".ljust(28) + self.reason


METHOD = Choice("method", "simclr", "does not lose dimensions, as SimSiam did on one set of three")


def facts_of(source: Source, accelerator: bool, network: Description | None = None) -> Facts:
    """The facts of a source's images, by their headers; the other facts are given."""
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
    """The configuration with the options that the rules choose, and these choices.

    An option keeps a value other than its default; `config.given` names those that keep their default, too.
    """
    reads = config.trains_nothing or _is_read_as_it_is(config, facts)
    choices = _without_training(config, facts) if reads else _training(config, facts)
    choices = [choice for choice in choices if config.is_free(choice.option)]
    first = {choice.option: choice for choice in reversed(choices)}  # of two rules the first counts
    choices = [choice for choice in choices if first[choice.option] is choice]
    values = {choice.option: choice.value for choice in choices}
    return dataclasses.replace(config, **values, recipe="none", given=""), choices


def _is_read_as_it_is(config: PretrainConfig, facts: Facts) -> bool:
    """Whether nothing is to be trained: published weights on a CPU, where no time for it is given."""
    is_free = all(map(config.is_free, ("epochs", "minutes")))
    return is_free and not facts.accelerator and is_published(config.backbone)


def _without_training(config: PretrainConfig, facts: Facts) -> list[Choice]:
    few_steps = "training published weights on a CPU gained nothing; --minutes=N trains"
    choices = [Choice("epochs", 0.0, few_steps), *_reading(config, facts, "image_size")]
    if facts.images > JUDGED and config.monitor != "none":
        choices.append(Choice("final_images", JUDGED, "enough to compare with raw pixels"))
    return choices


def _training(config: PretrainConfig, facts: Facts) -> list[Choice]:
    """The choices for a run that trains, in the order in which they are printed."""
    method = METHOD if config.is_free("method") else Choice("method", config.method, "")
    trained = bool(config.weights) or is_published(config.backbone)
    choices = [Choice("base_lr", 0.05, "keeps what the weights know; not measured")] if trained else []
    choices += [*_network(config, facts), *_views(config, facts), *_reading(config, facts, "read_size")]
    choices += [method, *_rates(method.value, facts)]
    if config.is_free("epochs"):
        choices.append(Choice("minutes", MINUTES, "neither --minutes nor --epochs was given"))
    monitored = int(MONITORED_A_MINUTE * (config.minutes or MINUTES))
    if monitored < config.knn_images and config.monitor != "none":
        choices.append(Choice("knn_images", max(monitored, 100), "leaves most of the time to the training"))
    return choices


def _reading(config: PretrainConfig, facts: Facts, option: str) -> list[Choice]:
    """The size at which a network with published weights reads images, as a choice for `option`."""
    if not is_published(config.backbone) or facts.network.fixed_size or config.finish == "none":
        return []
    small, large = READ_SIZES
    size = large if facts.side and facts.side > small else small
    return [Choice(option, max(size, facts.network.smallest), "published weights read more in larger images")]


def recall(config: PretrainConfig, before: dict[str, Any] | None) -> PretrainConfig:
    """With recipe=auto, the configuration with what the run in its folder has chosen by it.

    before: the description of the run (`Workdir.description`); None for a new folder.
    """
    if config.recipe == "none" or before is None:
        return config
    values = {name: before[name] for name in CHOSEN if name in before and config.is_free(name)}
    if values.get("epochs") or not config.is_free("minutes"):
        for name in ("epochs", "final_images"):  # what `minutes` chose is for `budget.recall`
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
    of_others = is_network(config.backbone)
    least = facts.network.smallest if of_others else 8
    most = max(least, NETWORK_VIEW) if of_others or config.stem == "imagenet" else 32
    size, reason = most, "more steps; the trained network reads images at twice the size"
    if facts.side and facts.side <= SMALL_IMAGE:
        size = min(most, max(least, facts.side))
    elif facts.accelerator:
        size, reason = 128, "not measured"
    keeps_its_own = of_others and (facts.network.fixed_size or facts.accelerator)
    size_rule = [] if keeps_its_own else [Choice("image_size", size, reason)]
    view = config.image_size or (None if keeps_its_own else size)
    memory = facts.images * (2 * (view or 0)) ** 2 * facts.channels
    if facts.decoded_each_epoch and view and memory <= MOST_BYTES and not config.data_service:
        size_rule.append(Choice("decoded_size", 2 * view, "decodes each image once, not once an epoch"))
    crop = Choice("crop_area", 0.2, "smaller crops teach more than milder ones, given the steps")
    if facts.channels not in (1, 3):
        return [*size_rule, Choice("augmentation", "multichannel", "these channels are no colours"), crop]
    return [
        *size_rule,
        Choice("augmentation", "imagenet", "all changes of SimSiam's views"),
        crop,
        Choice("jitter", 0.4, "the paper's"),
    ]


def _rates(method: str, facts: Facts) -> list[Choice]:
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
