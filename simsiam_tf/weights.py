"""Backbones as files: export, load, start from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import keras

from simsiam_tf import archive, nets  # noqa: F401 - nets: its layers are what a file names
from simsiam_tf.errors import UserError

EXPORTED = Path("export") / "backbone.keras"


def export(backbone: keras.Model, workdir: Path, facts: dict) -> Path:
    """Writes WORKDIR/export/backbone.keras and, beside it, its SHA-256 and `facts` as JSON."""
    path = workdir / EXPORTED
    path.parent.mkdir(exist_ok=True)
    temporary, card_ready = path.with_name("writing.keras"), path.with_name("writing.json")
    backbone.save(temporary)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    whole = {"file": path.name, "sha256": digest, **facts}
    card_ready.write_text(json.dumps(whole, indent=1) + "\n")
    for ready in (temporary, card_ready):
        with open(ready, "rb") as file:
            os.fsync(file.fileno())
    # Ended between these two, the card does not fit the file, and both are made again.
    temporary.replace(path)
    card_ready.replace(path.with_suffix(".json"))
    return path


def card(workdir: Path) -> dict:
    """The facts beside a work folder's export; empty where there is none, or it is damaged."""
    path = (workdir / EXPORTED).with_suffix(".json")
    try:
        facts = _facts(path)
        return facts if facts["sha256"] == _sha256(workdir / EXPORTED) else {}
    except (OSError, ValueError, KeyError):
        return {}


def _facts(path: Path) -> dict:
    """A card's content. Raises ValueError where it is none."""
    if path.stat().st_size > archive.JSON_BYTES:
        raise ValueError("too long")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(facts, dict):
        raise ValueError("no JSON object")
    return facts


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(where: str) -> keras.Model:
    """The backbone of a work folder or of a .keras file.

    Nothing is built or run before the file is known to hold a network and nothing else (`archive`).

    Raises:
        UserError: missing, damaged (its SHA-256 differs from the card's), not a model, or not safe.
    """
    path = Path(where).expanduser()
    path = path / EXPORTED if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"--weights={where}: no such file: {path}. Pass a finished work folder or a .keras file."
        )
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            known = _facts(beside).get("sha256")
        except (OSError, ValueError) as error:
            raise UserError(
                f"--weights={where}: {beside} is damaged ({error}). Remove it, if you trust {path.name}."
            ) from error
        if known and known != _sha256(path):
            raise UserError(f"--weights={where}: {path} is damaged: its SHA-256 differs from {beside}.")
    reason = archive.refusal(path)
    if reason:
        raise UserError(f"--weights={where}: {path} is not loaded: {reason}.")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001 - Keras raises whatever the archive provokes
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--weights={where}: {path} is no Keras model ({reason}).") from error


def start_from(backbone: keras.Model, where: str) -> None:
    """Copies the weights of `where` into a backbone of the same architecture.

    Raises:
        UserError: naming the first parts that differ.
    """
    loaded = {_name(v): v for v in load(where).weights}
    own = {_name(v): v for v in backbone.weights}
    differ = [n for n in {**own, **loaded} if _shape(own, n) != _shape(loaded, n)]
    if differ:
        n = differ[0]
        raise UserError(
            f"--weights={where}: another architecture; {len(differ)} of {len(own)} variables differ, "
            f"such as {n}: {_shape(own, n)} here, {_shape(loaded, n)} there. "
            "Give --backbone, --stem and --width as when it was trained."
        )
    for name, variable in own.items():
        variable.assign(loaded[name])


def _name(variable) -> str:
    return "/".join(variable.path.split("/")[-2:])


def _shape(variables: dict, name: str) -> tuple | None:
    return tuple(variables[name].shape) if name in variables else None
