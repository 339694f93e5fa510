"""Backbones as files: export, load, start from."""

from __future__ import annotations

import concurrent.futures
import copy
import hashlib
import json
import math
import os
from pathlib import Path

import keras

from simsiam_tf import archive, nets  # noqa: F401 - nets: whose layers a file may name
from simsiam_tf.errors import UserError

EXPORTED = Path("export") / "backbone.keras"
CARD_BYTES, CARD_DIGEST = 2**20, "card_sha256"
SPARE = 1000  # weights of a network that no file need hold, such as the state of random numbers


def export(model: keras.Model, workdir: Path, facts: dict, file: Path = EXPORTED) -> Path:
    """Writes WORKDIR/export/backbone.keras and, beside it, its SHA-256 and `facts` as JSON.

    The JSON has a digest of itself. file: another place within the folder.
    """
    path = workdir / file
    path.parent.mkdir(exist_ok=True)
    made, card_made = path.with_name("writing.keras"), path.with_name("writing.json")
    for leftover in (made, card_made):
        leftover.unlink(missing_ok=True)  # it could be a link to another place
    model.save(made)
    whole = json.loads(json.dumps({"file": path.name, "sha256": sha256(made), **facts}))
    whole[CARD_DIGEST] = _card_digest(whole)
    card_made.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    for file in (made, card_made):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    # A run that ends between these two leaves a card that does not fit: `card` and `load` refuse it.
    made.replace(path)
    card_made.replace(path.with_suffix(".json"))
    return path


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
    if facts.get(CARD_DIGEST, digest := _card_digest(facts)) != digest:
        raise ValueError(f"it is not as it was written; if you changed it, take its {CARD_DIGEST} out")
    return facts


def _card_digest(facts: dict) -> str:
    """SHA-256 of a card's content."""
    body = {key: value for key, value in facts.items() if key != CARD_DIGEST}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


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
        kind = archive.other_kind(path) if path.exists() else None
    except OSError as error:  # such as a name that is too long
        raise UserError(f"--weights={str(where)[:200]}: cannot be opened ({error.strerror}).") from error
    if kind:
        raise UserError(
            f"--weights={where}: {path} is {kind}, and is not opened. Only .keras files are: where you "
            "trust it, rebuild its network in Keras and save that."
        )
    path = located(where)
    if not path.is_file():
        raise UserError(
            f"--weights={where}: no such file: {path}. Pass a finished work folder or a .keras file."
        )
    _check_digest(path, where)
    try:
        config, held = archive.read(path)
        asked = _asked(config)
        if asked > held + SPARE:
            raise archive.Refused(f"it asks for {asked} weights and holds {held}")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except archive.Refused as error:
        raise UserError(f"--weights={where}: {path}: refused: {error}.") from error
    except Exception as error:  # noqa: BLE001 - Keras raises whatever the archive provokes
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--weights={where}: {path} is no Keras model ({reason}).") from error


def _check_digest(path: Path, where: str) -> None:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return
    try:
        known = _facts(beside).get("sha256")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"--weights={where}: {beside} is damaged ({reason}). Remove it, if you trust {path.name}."
        ) from error
    if known and known != sha256(path):
        raise UserError(f"--weights={where}: {path} is damaged: its SHA-256 differs from {beside}.")


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
