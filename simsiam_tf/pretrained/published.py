"""Copies networks with published weights (hub:PRESET, keras:NAME+imagenet) into work folders."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import keras

from simsiam_tf.config.backbones import BackboneName, parse_backbone
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.nets.backbones import build_backbone, describe_backbone
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.versions import library_versions

SIZE = 224  # side in pixels of the images of networks that take any size


def parse_weights(weights: str) -> BackboneName:
    """Parses a value of `weights` that names a network: hub:, file: and py: need no "+weights" there.

    Raises:
        UserError: no such network; or keras:NAME alone, whose weights would be random.
    """
    parsed = parse_backbone(weights, "weights")
    if parsed.kind == "keras" and not parsed.weights:
        raise UserError(f"weights={weights}: its weights would be random. Pass weights={weights}+imagenet.")
    if parsed.weights:
        return parsed
    return dataclasses.replace(parsed, text=f"{weights}+weights", weights="weights")


def results_folder(weights: str) -> Path:
    """runs/KIND-NAME: the work folder for the copy of a network and for results on it."""
    parsed = parse_weights(weights)
    path = Path(parsed.name).expanduser()
    name = re.sub(r"[^\w.]+", "-", path.name if path.exists() else parsed.name).strip("-")
    if path.exists():  # tells local networks of one name apart
        name += f"-{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:6]}"
    return Path("runs") / f"{parsed.kind}-{name}"


def import_network(weights: str, pixels: str = "auto", trust_code: bool = False) -> Path:
    """Copies a network with its weights into its work folder, unless it is there already.

    Returns the folder, `results_folder(weights)`.

    Raises:
        UserError: as `build_backbone`; or the folder cannot be written.
    """
    parsed, folder = parse_weights(weights), results_folder(weights)
    source = {
        "network": parsed.text, "pixels": pixels, "files": _files_digest(parsed.name),
        "keras": library_versions().get("keras"),
    }  # fmt: skip
    if backbone_file.read_card(folder).get("imported") == source:
        return folder
    known = describe_backbone(parsed.text, pixels, trust_code)
    size = known.size or SIZE
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # for the file; commands open it in their own policy
    try:
        network = build_backbone(parsed.text, size, known.channels or 3, pixels=pixels, trust_code=trust_code)
    finally:
        keras.config.set_dtype_policy(before)
    card: dict[str, Any] = {
        "imported": source, "made with": library_versions(),
        **({"license": known.licence} if known.licence else {}),
        "views": dataclasses.asdict(
            dataclasses.replace(AUGMENTATIONS["imagenet"], size=size, **known.pixel_rule)
        ),
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        backbone_file.export_network(network, folder, card)
    except OSError as error:
        raise UserError(f"weights={weights}: {folder} cannot be written ({error.strerror}).") from error
    return folder


def _files_digest(name: str) -> str | None:
    """A digest of the names, sizes and times of a preset's or a network's local files; None for others."""
    path = Path(name).expanduser()
    if not path.exists():
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]
