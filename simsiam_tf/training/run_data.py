"""Checks the network of a pre-training, and opens its images and their views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.config import PretrainConfig
from simsiam_tf.config.backbones import parse_backbone
from simsiam_tf.data import AUGMENTATIONS, Source, Views, augmentation_for, open_source
from simsiam_tf.data.pipeline import view_size
from simsiam_tf.data.sources.decoded import keep_decoded, keep_squares
from simsiam_tf.methods.python_method import import_method
from simsiam_tf.nets import layer_order
from simsiam_tf.pretrained import backbone_file, initial_weights, published
from simsiam_tf.pretrained.teacher import open_teacher
from simsiam_tf.recipes import rules
from simsiam_tf.runtime.devices import on_cpu, physical_memory
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError


def check_network(config: PretrainConfig) -> nets.Description:
    """Describes the images that the backbone takes, and finds errors before images are opened.

    To find errors it imports the user's method, opens the teacher, loads a network with weights, and builds a
    network that a user's function makes or whose layers are named by options.

    Raises:
        UserError: the method, the teacher, the network or an option that names layers does not fit.
    """
    if config.method.startswith("py:"):
        import_method(config.method.removeprefix("py:"))
    if teacher := config.method_option("teacher"):
        open_teacher(teacher, config.method_option("teacher_pixels"), config.trust_code)
    trusted = {"pixels": config.pixels, "trust_code": config.trust_code}
    known, parsed = nets.describe_backbone(config.backbone, **trusted), parse_backbone(config.backbone)
    by_layer = config.freeze_until or config.layer_decay != 1.0
    network = None
    if config.weights:
        network = backbone_file.load_backbone(config.weights, config.trust_code)
    elif parsed.weights or parsed.kind == "py" or by_layer:
        size, channels = config.image_size or known.size or published.SIZE, known.channels or 3
        network = nets.build_backbone(config.backbone, size, channels, **trusted)
    if network is not None:
        layer_order.check_names(network, config.freeze_until, config.layer_decay)
    return known


def follow_recipe(
    config: PretrainConfig,
    report: Path | None = None,
    source: Source | None = None,
    tell: Callable[[str], object] = print,
) -> tuple[PretrainConfig, Source | None]:
    """Fills in options that are not given: (the configuration, the images).

    The options of the network come from the card of `weights`; others are chosen by the rules of recipe=auto.
    With recipe=none, the images are not opened: `source` is returned.

    report, source: as for `open_data`. tell: function that gets the choices and their reasons as text.
    """
    config = _with_stored_network(config, tell)
    if config.recipe == "none":
        return config, source
    known = nets.describe_backbone(config.backbone, config.pixels, config.trust_code)
    source, _ = open_data(
        dataclasses.replace(config, channels=config.channels or known.channels), report, source
    )
    facts = rules.read_facts(source, not on_cpu(), known)
    config, choices = rules.choose(config, facts)
    tell("\n  ".join([f"recipe for {facts}:", *map(str, choices)]))
    return config.validate(), source


def _with_stored_network(config: PretrainConfig, tell: Callable[[str], object]) -> PretrainConfig:
    known = initial_weights.network_options(config.weights) if config.weights else {}
    if not config.is_free("backbone") and config.backbone != known.get("backbone"):
        return config
    known = {name: value for name, value in known.items() if config.is_free(name)}
    if known:
        tell(f"network of {config.weights}: {' '.join(f'--{name}={v}' for name, v in known.items())}")
    return dataclasses.replace(config, **known)


def recall_network(config: PretrainConfig, before: dict[str, Any] | None) -> PretrainConfig:
    """Takes over the network that the earlier run in `workdir` took from the card of `weights`.

    before: the description of the earlier run (`Workdir.description`); None for a new folder.
    """
    if not config.weights or before is None:
        return config
    options = ("backbone", "stem", "width")
    return dataclasses.replace(config, **{n: before[n] for n in options if n in before and config.is_free(n)})


def open_data(
    config: PretrainConfig, report: Path | None = None, source: Source | None = None
) -> tuple[Source, Views]:
    """(the images, their views).

    report: file for the names of unreadable images, in the work folder. source: the images to use instead of
    config.data.
    """
    # NOTE: with `run`, a Python function checks that the images are still those of the run's start. The
    # workers of a data service cannot call it.
    run = report.parent if report and not config.data_service else None
    source = open_source(source or config.data, "train", report=report, run=run, **config.source_options())
    name = augmentation_for(source) if config.augmentation == "auto" else config.augmentation
    augmentation = AUGMENTATIONS[name]
    changes = {
        name: getattr(config, name)
        for name in ("blur_p", "solarize_p", "flip_p", "vertical_flip_p", "rotate_p")
        if getattr(config, name) is not None
    }
    if config.jitter is not None:
        changes["jitter"] = (config.jitter, config.jitter, config.jitter, config.jitter / 4)
    if config.crop_area:
        changes["area"] = (config.crop_area, augmentation.area[1])
    known = nets.describe_backbone(config.backbone, config.pixels, config.trust_code)
    if config.trains_nothing and config.weights:  # they take images as in their own run
        known = initial_weights.describe_stored(config.weights, known)
    keeps_size = known.fixed_size or config.trains_nothing
    size = config.image_size or (keeps_size and known.size) or view_size(source, augmentation)
    changes |= known.pixel_rule
    augmentation = dataclasses.replace(augmentation, size=size, **changes)
    xla = False if config.jit_compile == "false" else None
    method = config.method_options
    number, local_size, local_area = method.small_views
    local_views = [augmentation.for_local_views(local_size, local_area)] * number
    return source, Views(augmentation, method.view_count, xla, local_views)


def keep_in_memory(config: PretrainConfig, source: Source, decodes: bool = True) -> Source:
    """The images, kept in memory as the option `decoded_size` says (`keep_squares`, `keep_decoded`).

    decodes: False checks the option alone, and returns the images as they are.

    Raises:
        UserError: with `decoded_size`, the images are arrays, do not fit into memory, or cannot be decoded.
    """
    side = config.decoded_size
    if side is None:
        return keep_decoded(source) if decodes else source
    if source.pixels is not None:
        raise UserError(f"decoded_size={side}: {source.name} is in memory already. Leave `decoded_size` out.")
    needed, memory = source.size * side**2 * source.channels, physical_memory()
    if needed > memory / 2:
        fits = int((memory / 2 / source.size / source.channels) ** 0.5)
        raise UserError(
            f"decoded_size={side}: {source.size:,} images take {needed / 2**30:.1f} GiB, more than half of "
            f"the memory, {memory / 2**30:.1f} GiB. Pass decoded_size={fits} or less, or leave it out."
        )
    return keep_squares(source, side) if decodes else source


def check_batch_size(source: Source, batch_size: int) -> None:
    """Raises UserError where a batch is larger than the data set, or the set has fewer than two images."""
    if source.size < 2:
        raise UserError(f"{source.name}: has {source.size} image, and a batch needs two. Give more images.")
    if batch_size > source.size:
        raise UserError(
            f"batch_size={batch_size}: larger than {source.name}, which has "
            f"{counted(source.size, 'image')}. Try batch_size={2 ** (source.size.bit_length() - 1)}."
        )


def check_read_size(config: PretrainConfig, backbone: keras.Model) -> None:
    """Raises UserError where the backbone takes images of one size, and `read_size` is another."""
    fixed = backbone.input_shape[1]
    if config.read_size and fixed not in (None, config.read_size):
        raise UserError(
            f"read_size={config.read_size}: backbone={config.backbone} takes only images of {fixed} pixels. "
            "Leave `read_size` out."
        )


def check_local_views(config: PretrainConfig, backbone: keras.Model, size: int) -> None:
    """Raises UserError where the backbone does not take the small views, of `size` pixels."""
    number, *_ = config.method_options.small_views
    if not number:
        return
    image = tf.TensorSpec([1, size, size, backbone.input_shape[-1]])
    try:
        tf.function(backbone, autograph=False).get_concrete_function(image)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"local_views={number}: backbone={config.backbone} does not take views of {size} "
            "pixels. Try another `local_size`, a ResNet such as backbone=resnet18, or local_views=0."
        ) from error
