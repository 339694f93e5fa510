"""A pre-trained backbone, together with how images are made ready for it."""

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
    """What a `.keras` file and the card beside it say.

    backbone: normalised images [B, S, S, channels] → features [B, F].
    augmentation: size and normalisation of those images; its augmentation is that of the pre-training.
    path, sha256: of the file.
    card: what is known of the run that made it; empty where nothing is.
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
        """Makes images ready: `centre` for evaluation, its augmentation for one view of each."""
        return Views(self.augmentation, count=1)

    def check(self, source: Source, flag: str = "data") -> None:
        """Raises UserError where a source's images have other channels than the backbone's."""
        if source.channels != self.channels:
            raise UserError(
                f"{flag}={source.name}: has {source.channels} channels, the backbone of {self.path} takes "
                f"{self.channels}. Give images of the same kind."
            )


def open_pretrained(where: str, augmentation: str = "auto", image_size: int | None = None) -> Pretrained:
    """The backbone of a finished work folder or of a .keras file, computing in Keras' present policy.

    Args:
        where: the folder or file.
        augmentation: a key of `AUGMENTATIONS` for a file without a card; "auto": as in the pre-training.
        image_size: side of the images in pixels; as in the pre-training when None.

    Raises:
        UserError: as `weights.load`; or nothing says how images are made ready.
    """
    backbone = in_present_policy(backbone_file.load(where))
    path = backbone_file.located(where)
    if len(backbone.inputs) != 1 or len(backbone.input_shape) != 4 or len(backbone.output_shape) != 2:
        raise UserError(
            f"weights={where}: is no backbone: it maps {backbone.input_shape} to {backbone.output_shape}, "
            "not images [B, H, W, C] to features [B, F]."
        )
    card = backbone_file.card(where)
    if augmentation != "auto":
        chosen = AUGMENTATIONS[augmentation]
    elif "views" in card:
        chosen = _recorded(card["views"], path)
    else:
        raise UserError(
            f"weights={where}: no card beside {path.name} says how images are made ready for it. Pass "
            "augmentation=imagenet, cifar or grayscale, and `image_size`."
        )
    chosen = dataclasses.replace(chosen, size=image_size or chosen.size)
    return Pretrained(backbone, chosen, path, backbone_file.sha256(path), card)


def in_present_policy(model: keras.Model) -> keras.Model:
    """The same network and weights, computing as `keras.config.dtype_policy()` says.

    A network that was trained in bfloat16 says so in its file; where the hardware does not compute in
    it, that is slow and rounds for nothing.
    """
    config, wanted = model.get_config(), keras.config.dtype_policy().name
    changed = _with_policy(config, wanted)
    if changed == config:
        return model
    rebuilt = type(model).from_config(changed)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _with_policy(config: Any, name: str) -> Any:
    """A configuration whose layers all have the dtype policy of this name."""
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(part, name) for part in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {**config["config"], "name": name}}
    return {key: _with_policy(part, name) for key, part in config.items()}


def _recorded(views: dict, path: Path) -> Augmentation:
    """An augmentation as `dataclasses.asdict` made it, back from JSON."""
    try:
        known = {"solarize_p": 0.0, **views}  # which cards of earlier versions do not have
        known = {f.name: known[f.name] for f in dataclasses.fields(Augmentation)}
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        for name, value in known.items():
            like = getattr(AUGMENTATIONS["imagenet"], name)
            of_views = name in ("blur_p", "solarize_p") and isinstance(value, tuple)  # one for each view
            if not _alike(value, (like,) if of_views else like):
                raise TypeError(f"{name} is {value!r}"[:100])
        return Augmentation(**known)
    except (KeyError, TypeError) as error:
        reason = str(error) if str(error).isprintable() else ascii(str(error))
        raise UserError(
            f'{path.with_suffix(".json")}: its "views" are no augmentation ({reason}). Pass '
            "`augmentation` and `image_size`."
        ) from error


def _alike(value: Any, known: Any) -> bool:
    """Whether a value is of the kind of a known one: numbers are finite, and whole where that one is."""
    if isinstance(known, tuple):
        return isinstance(value, tuple) and len(value) > 0 and all(_alike(v, known[0]) for v in value)
    if isinstance(known, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(known)
