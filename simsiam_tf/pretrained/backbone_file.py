"""Backbones, and the heads beside them, as files."""

from __future__ import annotations

import concurrent.futures
import copy
import hashlib
import json
import math
import os
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from simsiam_tf.nets import keras_networks
from simsiam_tf.pretrained import keras_file_check
from simsiam_tf.runtime.errors import UserError

EXPORTED = Path("export") / "backbone.keras"
CARD_BYTES = 2**20
SPARE = 1000  # weights of a network that no file need hold, such as the state of random numbers
HEADS = ("projector", "predictor")
PARTS = (*HEADS, *(f"momentum_{name}" for name in ("backbone", *HEADS)))  # files beside the backbone's
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".pth.tar", ".bin", ".safetensors")  # what `convert` reads
_DIGEST = "card sha256"


def save(model: keras.Model, path: Path) -> None:
    """Saves a model in stock Keras layers; equal models become equal bytes, without dates and addresses."""
    keras_networks.to_stock_layers(model).save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    numbers: dict[int, int] = {}

    def numbered(part: dict) -> dict:
        if isinstance(part.get("shared_object_id"), int):  # Keras writes where it lay in memory
            part["shared_object_id"] = numbers.setdefault(part["shared_object_id"], len(numbers) + 1)
        return part

    config = json.loads(members["config.json"], object_hook=numbered)
    version = json.loads(members["metadata.json"])["keras_version"]
    members["config.json"] = json.dumps(config).encode()
    members["metadata.json"] = json.dumps({"keras_version": version}).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data)


def export(model: keras.Model, workdir: Path, facts: Mapping[str, Any], file: Path = EXPORTED) -> Path:
    """Writes WORKDIR/export/backbone.keras and, beside it, a card: its SHA-256 and `facts` as JSON.

    file: another place within the folder.
    """
    path = workdir / file
    path.parent.mkdir(exist_ok=True)
    made, card_made = path.with_name("writing.keras"), path.with_name("writing.json")
    for leftover in (made, card_made):
        leftover.unlink(missing_ok=True)  # it could be a link to another place
    save(model, made)
    body = json.loads(json.dumps({"file": path.name, "sha256": sha256(made), **facts}))
    card_made.write_text(card_text(body), encoding="utf-8")
    for file in (made, card_made):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    # A run that ends between these two leaves a card that does not fit: `card` and `load` refuse it.
    made.replace(path)
    card_made.replace(path.with_suffix(".json"))
    return path


def card_text(facts: Mapping[str, Any]) -> str:
    """A card with the digest of its content; one that `facts` have is of another content."""
    body = {k: v for k, v in json.loads(json.dumps(facts)).items() if k != _DIGEST}
    return json.dumps({**body, _DIGEST: _digest(body)}, indent=1) + "\n"


def export_parts(parts: Mapping[str, keras.Model], workdir: Path, facts: Mapping[str, Any]) -> Path:
    """Writes "backbone" as `export` does and the other `PARTS` beside it, whose digests its card has."""
    digests = {}
    for name in PARTS:
        path = (workdir / EXPORTED).with_name(f"{name}.keras")
        if name in parts:
            digests[name] = sha256(export(parts[name], workdir, {}, EXPORTED.with_name(path.name)))
        else:  # of what was there before
            for old in (path, path.with_suffix(".json")):
                old.unlink(missing_ok=True)
    return export(parts["backbone"], workdir, {**facts, "parts": digests})


def located(where: str | Path) -> Path:
    """The .keras file that a work folder's or a file's path means; it need not exist."""
    path = Path(where).expanduser()
    return path / EXPORTED if path.is_dir() else path


def card(where: str | Path) -> dict:
    """The facts beside a backbone's file; empty where there are none, or they do not fit it."""
    path = located(where)
    try:
        facts = _facts(path.with_suffix(".json"))
        return facts if facts.get("sha256") == sha256(path) else {}
    except (OSError, ValueError):
        return {}


def _facts(path: Path) -> dict:
    """A card's content. Raises ValueError where it is none."""
    if path.stat().st_size > CARD_BYTES:
        raise ValueError(f"above {CARD_BYTES} bytes")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(facts, dict):
        raise ValueError("no JSON object")
    digest = facts.pop(_DIGEST, None)  # which cards of earlier versions do not have
    if digest is not None and digest != _digest(facts):
        raise ValueError(f'changed since it was written; if that was you, take "{_DIGEST}" out of it')
    return facts


def _digest(facts: dict) -> str:
    """SHA-256 of a card's content, whatever its layout."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(where: str) -> keras.Model:
    """The backbone of a work folder or of a .keras file.

    Nothing is built of a file before it is known to hold a network and nothing else (`archive`), and
    no larger a network than its weights are for.

    Raises:
        UserError: missing, of another kind, damaged (its SHA-256 differs from the card's), not a
            model, or one that could do more than compute.
    """
    path = Path(where).expanduser()
    try:
        kind = keras_file_check.other_format(path) if path.exists() else None
    except OSError as error:  # such as a name that is too long
        raise UserError(f"weights={str(where)[:200]}: cannot be opened ({error.strerror}).") from error
    if kind:
        fix = "where you trust it, rebuild its network in Keras and save that"
        if path.name.lower().endswith(TORCH_SUFFIXES):
            fix = (
                f"convert it first: python -m simsiam_tf.convert --weights={shlex.quote(str(where))} "
                "--out=runs/converted, and give that folder"
            )
        raise UserError(
            f"weights={where}: {path} is {kind}, and is not opened. Only .keras files are: {fix}."
        )
    path = located(where)
    if not path.is_file():
        raise UserError(
            f"weights={where}: no such file: {path}. Pass a finished work folder or a .keras file."
        )
    _check_digest(path, where)
    try:
        config, held = keras_file_check.read_keras_file(path)
        asked = _asked(config)
        if asked > held + SPARE:
            raise keras_file_check.Refused(f"it asks for {asked} weights and holds {held}")
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        return keras_networks.to_training_layers(model)
    except keras_file_check.Exported as error:
        source = _source(path)
        raise UserError(f"weights={where}: {path} is {error}: weights={source}.") from error
    except keras_file_check.Refused as error:
        raise UserError(f"weights={where}: {path}: refused: {error}.") from error
    except Exception as error:  # noqa: BLE001 - Keras raises whatever the archive provokes
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"weights={where}: {path} is no Keras model ({reason}).") from error


def _source(path: Path) -> str:
    """The folder that an exported file was made from, by the card beside it."""
    try:
        source = _facts(path.with_name(f"{path.name}.json"))["source"]["path"]
        source = str(Path(source).parent.parent if source.endswith(str(EXPORTED)) else source)
        return shlex.quote(source) if source.isprintable() else ascii(source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "runs/…"


def _check_digest(path: Path, where: str) -> None:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return
    try:
        known = _facts(beside).get("sha256")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"weights={where}: {beside} is damaged ({reason}). Remove it, if you trust {path.name}."
        ) from error
    if known and known != sha256(path):
        raise UserError(f"weights={where}: {path} is damaged: its SHA-256 differs from {beside}.")


def _asked(config: dict) -> int:
    """How many numbers the variables of a configuration would be; none of them is made."""

    def count() -> int:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)
        return sum(math.prod(v.shape) for v in model.variables)

    # NOTE: Keras keeps, thread by thread, a list of variables whose values it still owes. Those
    # of this thread are owed to nobody, and are forgotten with it.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(count).result()


def load_part(where: str | Path, name: str) -> keras.Model | None:
    """One of `PARTS` beside a backbone; None where its card names none.

    Raises:
        UserError: as `load`; or the part belongs to another backbone.
    """
    digests = card(where).get("parts")
    digest = digests.get(name) if isinstance(digests, dict) else None
    if digest is None:
        return None
    path = located(where).with_name(f"{name}.keras")
    model = load(str(path))
    if sha256(path) != digest:
        raise UserError(
            f"weights={where}: {path} belongs to another backbone: its SHA-256 differs from the card's."
        )
    return model


def options_text(options: Mapping[str, Any]) -> str:
    """Options as they are written in messages."""
    shown = {k: str(v).lower() if isinstance(v, bool) else v for k, v in options.items()}
    return " ".join(f"{k}={v}" for k, v in shown.items())
