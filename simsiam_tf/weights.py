"""Backbones as files: export, load, start from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import keras

from simsiam_tf import nets  # noqa: F401 - whose layers a file may name
from simsiam_tf.errors import UserError

EXPORTED = Path("export") / "backbone.keras"


def export(backbone: keras.Model, workdir: Path, facts: dict) -> Path:
    """Writes WORKDIR/export/backbone.keras and, beside it, its SHA-256 and `facts` as JSON."""
    path = workdir / EXPORTED
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name("writing.keras")
    backbone.save(temporary)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    temporary.replace(path)
    whole = {"file": path.name, "sha256": digest, **facts}
    path.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    return path


def card(workdir: Path) -> dict:
    """The facts beside a work folder's export; empty where there is none."""
    path = (workdir / EXPORTED).with_suffix(".json")
    return json.loads(path.read_text()) if path.is_file() else {}


def load(where: str) -> keras.Model:
    """The backbone of a work folder or of a .keras file.

    Raises:
        UserError: missing, damaged (its SHA-256 differs from the card's) or not a model.
    """
    path = Path(where).expanduser()
    path = path / EXPORTED if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"--weights={where}: no such file: {path}. Pass a finished work folder or a .keras file."
        )
    beside = path.with_suffix(".json")
    if beside.is_file():
        known = json.loads(beside.read_text()).get("sha256")
        if known and known != hashlib.sha256(path.read_bytes()).hexdigest():
            raise UserError(f"--weights={where}: {path} is damaged: its SHA-256 differs from {beside}.")
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
