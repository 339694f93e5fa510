"""A pre-trained backbone together with the preprocessing of its images."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras

from simsiam_tf.data import AUGMENTATIONS, Augmentation, Source, Views
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A backbone of a `.keras` file and its model card.

    backbone: normalised images [B, S, S, channels] → features [B, F].
    augmentation: that of the pre-training, with the size and normalisation of the images.
    path, sha256: path and digest of the file.
    card: metadata of the run that trained it; empty without any.
    """

    backbone: keras.Model
    augmentation: Augmentation
    path: Path
    sha256: str
    card: dict

    @property
    def channels(self) -> int:
        return self.backbone.input_shape[-1]

    @property
    def features(self) -> int:
        return self.backbone.output_shape[-1]

    @property
    def views(self) -> Views:
        """The preprocessing: `centre` for evaluation, the augmentation for one view of each image."""
        return Views(self.augmentation, count=1)

    def check_channels(self, source: Source, flag: str = "data") -> None:
        """Raises UserError where a source's images have other channels than the backbone takes."""
        if source.channels != self.channels:
            raise UserError(
                f"{flag}={source.name}: has {source.channels} channels, the backbone of {self.path} takes "
                f"{self.channels}. Give images of the same kind."
            )


def open_pretrained(where: str, augmentation: str = "auto", image_size: int | None = None) -> Pretrained:
    """Opens the backbone of a finished work folder or of a .keras file, in Keras' present dtype policy.

    Args:
        where: the folder or file.
        augmentation: a key of `AUGMENTATIONS` for a file without a card; "auto": that of the pre-training.
        image_size: side of the images in pixels; that of the pre-training when None.

    Raises:
        UserError: as `load_backbone`; or nothing tells the preprocessing.
    """
    backbone = with_present_policy(backbone_file.load_backbone(where))
    path = backbone_file.backbone_path(where)
    if len(backbone.inputs) != 1 or len(backbone.input_shape) != 4 or len(backbone.output_shape) != 2:
        raise UserError(
            f"weights={where}: is no backbone: it maps {backbone.input_shape} to {backbone.output_shape}, "
            "not images [B, H, W, C] to features [B, F]."
        )
    card = backbone_file.read_card(where)
    if augmentation != "auto":
        chosen = AUGMENTATIONS[augmentation]
    elif "views" in card:
        chosen = _augmentation_of_card(card["views"], path)
    else:
        raise UserError(
            f"weights={where}: no card beside {path.name} says how images are preprocessed for it. Pass "
            "augmentation=imagenet, cifar or grayscale, and `image_size`."
        )
    chosen = dataclasses.replace(chosen, size=image_size or chosen.size)
    return Pretrained(backbone, chosen, path, backbone_file.sha256(path), card)


def with_present_policy(model: keras.Model) -> keras.Model:
    """The same network and weights, computing by `keras.config.dtype_policy()`.

    The file of a network that was trained in bfloat16 names that policy. On hardware without bfloat16, it
    would make the network slow and its results less exact.
    """
    config: Any = model.get_config()
    changed = _with_policy(config, keras.config.dtype_policy().name)
    if changed == config:
        return model
    rebuilt: Any = type(model).from_config(changed)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _with_policy(config: Any, name: str) -> Any:
    """The configuration with this dtype policy for every layer."""
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(value, name) for value in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {**config["config"], "name": name}}
    return {key: _with_policy(value, name) for key, value in config.items()}


def _augmentation_of_card(views: Any, path: Path) -> Augmentation:
    """The augmentation that a card holds as `dataclasses.asdict` and JSON made it."""
    try:
        values = {"solarize_p": 0.0, **views}  # cards of earlier versions lack it
        values = {f.name: values[f.name] for f in dataclasses.fields(Augmentation)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for name, value in values.items():
            example = getattr(AUGMENTATIONS["imagenet"], name)
            if name in ("blur_p", "solarize_p") and isinstance(value, tuple):  # one for each view
                example = (example,)
            if not _has_type_of(value, example):
                raise TypeError(f"{name} is {value!r}"[:100])
        return Augmentation(**values)
    except (KeyError, TypeError) as error:
        reason = str(error) if str(error).isprintable() else ascii(str(error))
        raise UserError(
            f'{path.with_suffix(".json")}: its "views" are no augmentation ({reason}). Pass '
            "`augmentation` and `image_size`."
        ) from error


def _has_type_of(value: Any, example: Any) -> bool:
    """Whether a value has the type of an example; a float example allows any finite number."""
    if isinstance(example, tuple):
        return isinstance(value, tuple) and len(value) > 0 and all(_has_type_of(v, example[0]) for v in value)
    if isinstance(example, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(example)
