"""Backbones as .keras files of stock layers, each with a card (metadata as JSON) beside it.

Projector and predictor are .keras files beside the backbone. So are, after the conversion of a checkpoint,
the optimizer's momenta: for each of the three networks a network of the same layers.
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import os
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from simsiam_tf.nets import keras_networks, whitening
from simsiam_tf.pretrained import keras_file_check, torch_layouts, weights_address
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.digests import json_sha256, sha256
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError

EXPORTED = Path("export") / "backbone.keras"
MAX_CARD_BYTES = 2**20
MAX_READ_SIZE = 4096  # pixels
SPARE_WEIGHTS = 1000  # number of weights that a file may lack, such as the states of random generators
HEADS = ("projector", "predictor")
NETWORKS_BESIDE = (
    *HEADS,
    *(f"momentum_{name}" for name in ("backbone", *HEADS)),
)  # networks that are stored as NAME.keras beside the backbone
_DIGEST = "card sha256"


def save_network(network: keras.Model, path: Path) -> None:
    """Saves a network in stock Keras layers; the files of equal networks are equal, byte for byte."""
    keras_networks.to_stock_layers(network).save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    numbers: dict[int, int] = {}

    def renumber(entry: dict) -> dict:
        if isinstance(entry.get("shared_object_id"), int):  # an address in memory
            entry["shared_object_id"] = numbers.setdefault(entry["shared_object_id"], len(numbers) + 1)
        return entry

    config = json.loads(members["config.json"], object_hook=renumber)
    version = json.loads(members["metadata.json"])["keras_version"]
    members["config.json"] = json.dumps(config).encode()
    members["metadata.json"] = json.dumps({"keras_version": version}).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data)


def export_network(
    network: keras.Model, workdir: Path, metadata: Mapping[str, Any], file: Path = EXPORTED
) -> Path:
    """Writes WORKDIR/export/backbone.keras and, beside it, a card: the file's SHA-256 and `metadata` as JSON.

    file: path of the .keras file within `workdir`. Returns the path of the .keras file.
    """
    path = workdir / file
    path.parent.mkdir(exist_ok=True)
    new = path.with_name("writing.keras")
    new.unlink(missing_ok=True)  # it could be a link to another place
    save_network(network, new)
    card = card_text({"file": path.name, "sha256": sha256(new), **metadata})
    with open(new, "rb") as written:
        os.fsync(written.fileno())
    # A run that is killed between the next two lines leaves the new file beside an older card:
    # `load_backbone` then refuses the file, and `read_card` returns nothing.
    new.replace(path)
    atomic_write_text(path.with_suffix(".json"), card)
    return path


def export_networks(networks: Mapping[str, keras.Model], workdir: Path, metadata: Mapping[str, Any]) -> Path:
    """Writes networks["backbone"] and, beside it, the networks named in `NETWORKS_BESIDE`, where given.

    The backbone's card has the SHA-256 of each network beside it. Removes the files of networks beside it
    that an earlier export wrote and that `networks` lacks. Returns the path of the backbone.
    """
    digests = {}
    for name in NETWORKS_BESIDE:
        file = EXPORTED.with_name(f"{name}.keras")
        if name in networks:
            digests[name] = sha256(export_network(networks[name], workdir, {}, file))
        else:
            for old in (workdir / file, (workdir / file).with_suffix(".json")):
                old.unlink(missing_ok=True)
    return export_network(networks["backbone"], workdir, {**metadata, "networks beside": digests})


def card_text(metadata: Mapping[str, Any]) -> str:
    """A card as JSON with the digest of its content; an earlier digest is replaced."""
    content = {k: v for k, v in json.loads(json.dumps(metadata)).items() if k != _DIGEST}
    return json.dumps({**content, _DIGEST: json_sha256(content)}, indent=1) + "\n"


def backbone_path(weights: str | Path) -> Path:
    """The path of the .keras file for a work folder, a folder for the Hub, an address or a file.

    The file need not exist, except at an address.
    """
    path = weights_address.local_path(weights)
    if not path.is_dir():
        return path
    in_hub_folder = (path / EXPORTED.name).is_file() and not (path / EXPORTED).is_file()
    return path / (EXPORTED.name if in_hub_folder else EXPORTED)


def read_card(weights: str | Path) -> dict:
    """The card beside a backbone's file; empty if it is missing, damaged or belongs to another file."""
    try:
        return _verified_card(backbone_path(weights), weights)
    except (OSError, UserError):
        return {}


def card_entries(card: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The dictionary under a key of a card; empty where the card has none there."""
    value = card.get(key)
    return value if isinstance(value, dict) else {}


def card_size(card: Mapping[str, Any]) -> int | None:
    """Side in pixels of the images that a card's network reads, finished or as trained; None: unknown."""
    sizes = (card_entries(card, key).get("size") for key in ("finishing", "views"))
    return next((size for size in sizes if type(size) is int and 0 < size <= MAX_READ_SIZE), None)


def _verified_card(path: Path, weights: str | Path) -> dict:
    """The card of a backbone's file. Raises UserError if either is damaged, or the card is missing."""
    card_path = path.with_suffix(".json")
    try:
        card = _parse_card(card_path)
    except (OSError, ValueError) as error:
        reason = one_line(error)[:100]
        raise UserError(
            f"weights={weights}: {card_path} is damaged ({reason}). Remove it, if you trust {path.name}."
        ) from error
    if card.get("sha256") != sha256(path):
        raise UserError(
            f"weights={weights}: {path} is damaged: its SHA-256 differs from {card_path}."
            f"{weights_address.damage_advice(weights)}"
        )
    return card


def _parse_card(path: Path) -> dict:
    """The content of a card without its digest. Raises ValueError where the file is not an intact card."""
    if path.stat().st_size > MAX_CARD_BYTES:
        raise ValueError(f"above {MAX_CARD_BYTES} bytes")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(card, dict):
        raise ValueError("no JSON object")
    digest = card.pop(_DIGEST, None)  # None where a user changed the card and removed the digest
    if digest not in (None, json_sha256(card)):
        raise ValueError(f'changed since it was written; if that was you, take "{_DIGEST}" out of it')
    return card


def load_backbone(weights: str | Path, trust_code: bool = False, finished: bool = False) -> keras.Model:
    """The backbone of a work folder, an address or a .keras file, in layers that can be trained.

    It computes in `keras.config.dtype_policy()`, whatever policy it was trained in. The file is checked
    before anything in it is built (`keras_file_check`). Refused are a network with over `SPARE_WEIGHTS` more
    weights than the file holds, and a file whose card has another SHA-256.

    trust_code: leave out all checks but the SHA-256, and run whatever code the file names.
    finished: whether to return the backbone with the whitening of its features, if the file has one. The
        whitening computes in float32. False: the backbone as it was trained, without whitening.

    Raises:
        UserError: the file is missing, of another format, damaged (its SHA-256 differs from the card's), an
            export with its preprocessing, not a network, or could run code.
    """
    path = weights_address.local_path(weights)
    try:
        format = keras_file_check.other_format(path) if path.exists() else None
    except OSError as error:  # such as a name that is too long
        raise UserError(f"weights={str(weights)[:200]}: cannot be opened ({error.strerror}).") from error
    if format:
        fix = "where you trust it, rebuild its network in Keras and save that"
        if path.suffix in torch_layouts.SUFFIXES:
            convert = f"python -m simsiam_tf.convert --weights={shlex.quote(str(weights))}"
            fix = f"convert it first: {convert} --out=runs/converted, and give that folder"
        raise UserError(f"weights={weights}: {path} is {format}, and only .keras files are opened: {fix}.")
    path = backbone_path(weights)
    if not path.is_file():
        raise UserError(
            f"weights={weights}: no such file: {path}. Pass a finished work folder, a .keras file, "
            "hf://USER/NAME or a URL."
        )
    if path.with_suffix(".json").is_file():
        _verified_card(path, weights)
    try:
        if not trust_code:
            config, stored = keras_file_check.read_keras_file(path)
            wanted = _count_weights(config)
            if wanted > stored + SPARE_WEIGHTS:
                raise keras_file_check.Refused(f"it asks for {wanted} weights and holds {stored}")
        network: Any = keras.saving.load_model(path, compile=False, safe_mode=not trust_code)
        for layer in whitening.without_whitening(network)._flatten_layers():
            layer.dtype_policy = keras.config.dtype_policy()
        network = network if finished else whitening.without_whitening(network)
        return keras_networks.to_training_layers(network)
    except keras_file_check.Exported as error:
        raise UserError(f"weights={weights}: {path} is {error}: weights={_export_source(path)}.") from error
    except keras_file_check.Refused as error:
        raise UserError(f"weights={weights}: {path}: refused: {error}.") from error
    except Exception as error:  # noqa: BLE001 - Keras raises whatever the archive provokes
        reason = one_line(error)[:200]
        raise UserError(f"weights={weights}: {path} is no Keras model ({reason}).") from error


def load_beside(weights: str | Path, name: str) -> keras.Model | None:
    """The network `name`, one of `NETWORKS_BESIDE`, beside a backbone; None where the card does not name it.

    Raises:
        UserError: as `load_backbone`; or the network's file belongs to another backbone.
    """
    digest = card_entries(read_card(weights), "networks beside").get(name)
    if digest is None:
        return None
    path = backbone_path(weights).with_name(f"{name}.keras")
    network = load_backbone(path)
    if sha256(path) != digest:
        raise UserError(
            f"weights={weights}: {path} belongs to another backbone: its SHA-256 differs from the card's."
        )
    return network


def _export_source(path: Path) -> str:
    """The run or address that an export was made from, by its model card, shell-quoted; else "runs/…"."""
    try:
        place = _parse_card(path.with_name(f"{path.name}.json"))["source"]["path"]
        source = Path(place)
    except (OSError, ValueError, KeyError, TypeError):
        return "runs/…"
    run = source.parent.parent if source.match(str(EXPORTED)) else source
    run = place if weights_address.is_address(place) else run
    return printable_text(shlex.quote(str(run)))


def _count_weights(config: dict) -> int:
    """The number of values in the variables of a network, from its configuration; creates none of them."""

    def count() -> int:
        with keras.StatelessScope(initialize_variables=False):
            network: Any = keras.saving.deserialize_keras_object(config, safe_mode=True)
        return sum(math.prod(v.shape) for v in network.variables)

    # NOTE: Keras keeps, for each thread, a list of variables that wait for their values. A thread of its
    # own discards that list when it ends.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(count).result()
