"""Weights by address instead of a path: hf://USER/NAME, or the URL of a card with the SHA-256 of the card.

The card of a backbone holds the SHA-256 of the network and the size and normalisation of its images. So one
digest covers both files, and a wrong one is found before the larger of them is downloaded.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from simsiam_tf.config.backbones import SHA256, is_network
from simsiam_tf.config.places import is_url
from simsiam_tf.pretrained import hub
from simsiam_tf.runtime.atomic_files import atomic_file
from simsiam_tf.runtime.digests import sha256
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

CACHE = "weights"  # folder within the user's cache
_FORM = re.compile(rf"(?P<card>[^#]*[^#/]\.json){SHA256}(?P<digest>[0-9a-f]{{64}})", re.IGNORECASE)


def is_address(weights: str | Path) -> bool:
    """Whether weights are named by an address instead of a path."""
    if not isinstance(weights, str) or is_network(weights):
        return False
    return is_url(weights) or SHA256 in weights


def local_path(weights: str | Path) -> Path:
    """The path of weights; those of an address are downloaded first."""
    if not is_address(weights):
        return Path(weights).expanduser()
    return hub.download(str(weights)) if hub.is_address(weights) else download(str(weights))


def pinned_address(address: str) -> str:
    """The address of the same backbone that later publications do not change."""
    return hub.pinned_address(address) if hub.is_address(address) else address


def results_folder(address: str) -> Path:
    """runs/USER-NAME or runs/NAME-DIGEST, for results on a backbone that lies in a cache."""
    if hub.is_address(address):
        return hub.results_folder(address)
    card, digest = parse_address(address)
    return Path("runs") / f"{re.sub(r'[^0-9A-Za-z._-]+', '-', Path(card).stem)}-{digest[:8]}"


def damage_advice(weights: str | Path) -> str:
    """The advice for a damaged file of an address, as the end of a message; "" for a path."""
    if not is_address(weights):
        return ""
    folder = local_path(weights)
    return f" Remove {folder.parents[1] if hub.is_address(weights) else folder} to download it again."


def parse_address(address: str) -> tuple[str, str]:
    """(the URL or path of a card, its SHA-256). Raises UserError for any other form."""
    match = _FORM.fullmatch(address)
    if match is None:
        raise UserError(
            f"weights={one_line(address)[:200]}: must be hf://USER/NAME, or the address of a backbone's card "
            f"with the card's SHA-256, as in https://HOST/NAME.json{SHA256}HEX (64 digits, by sha256sum or "
            "a release's SHA256SUMS). NAME.keras lies beside it."
        )
    return match["card"], match["digest"].lower()


def download(address: str) -> Path:
    """The folder with backbone.keras and its card, in the user's cache; downloaded where it is not there.

    Raises:
        UserError: another form of address, a file that cannot be read, or whose SHA-256 is another one.
    """
    from simsiam_tf.data.sources.addresses import absolute  # loads TensorFlow
    from simsiam_tf.data.sources.file_records import cache_folder

    card_address, digest = parse_address(address)
    folder = cache_folder() / CACHE / digest
    network, card = folder / "backbone.keras", folder / "backbone.json"
    if network.is_file() and card.is_file() and sha256(card) == digest:
        return folder
    card_address = absolute(card_address)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(card_address, card, digest, "the address")
        _fetch(f"{card_address[:-5]}.keras", network, _network_sha256(card, card_address), "its card")
    except OSError as error:
        raise UserError(f"weights={address}: {folder} cannot be written ({error.strerror}).") from error
    return folder


def _fetch(source: str, path: Path, digest: str, asked_by: str) -> None:
    """Copies the file at `source` to `path`.

    asked_by: source of the digest, for the message.

    Raises:
        UserError: the file cannot be read, or its SHA-256 is not `digest`; then nothing is written.
    """
    from simsiam_tf.data.sources.addresses import copy_file

    with atomic_file(path) as file:
        try:
            copy_file(source, file.name)
        except UserError as error:
            raise UserError(f"weights={error}") from error
        received = sha256(Path(file.name))
        if received != digest:
            raise UserError(
                f"weights={source}: refused: its SHA-256 is {received}, {asked_by} asks for {digest}. "
                "The file is damaged or another one; take both files and the digest from one place."
            )


def _network_sha256(card: Path, address: str) -> str:
    try:
        return str(json.loads(card.read_bytes())["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"weights={address}: is not the card of a backbone: it has no SHA-256.") from error
