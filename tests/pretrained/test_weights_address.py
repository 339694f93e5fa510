"""Weights by the URL of their card: one digest covers card and network, and nothing else is ever opened."""

import hashlib
import json
import sys

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'simsiam-tf[remote]'")

from helpers import http_files, small_backbones

import simsiam_tf as ss
from simsiam_tf import embed
from simsiam_tf.config.backbones import is_network
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.data.sources import addresses
from simsiam_tf.features import embedding_file
from simsiam_tf.pretrained import backbone_file, weights_address
from simsiam_tf.runtime import digests
from simsiam_tf.runtime.errors import UserError

NETWORK = b"network" * 100


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run."""
    return small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATIONS["cifar"], channels=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server():
    """Serves a card and its network, whose content does not matter before it is opened."""
    card = {"sha256": hashlib.sha256(NETWORK).hexdigest(), "views": {"mean": [0.5]}}
    files = {"v1/fish.json": backbone_file.card_text(card).encode(), "v1/fish.keras": NETWORK}
    with http_files.serving(files) as server:
        yield server


@pytest.fixture
def digest(server):
    """SHA-256 of the card."""
    return hashlib.sha256(server.contents["v1/fish.json"]).hexdigest()


def error_of(weights):
    with pytest.raises(UserError) as error:
        ss.from_pretrained(weights)
    assert "\n" not in str(error.value)
    return str(error.value)


def kept(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_url_opens_the_network_that_was_published(workdir, tmp_path, monkeypatch, capsys):
    """And its results go to runs/, while embeddings record the address with its digest."""
    monkeypatch.chdir(tmp_path)
    files = {f"fish.{kind}": (workdir / f"export/backbone.{kind}").read_bytes() for kind in ("keras", "json")}
    with http_files.serving(files) as server:
        address = f"{server.url}/fish.json#sha256={hashlib.sha256(files['fish.json']).hexdigest()}"
        assert embed.main([f"--weights={address}", "--data=digits:test[:20]", "--out=few.npz"]) == 0
    known = embedding_file.read_embeddings(tmp_path / "few.npz")
    assert known.about["weights"] == address
    assert (tmp_path / weights_address.results_folder(address) / "features").is_dir()
    opened, source = ss.from_pretrained(address), ss.from_pretrained(workdir)  # the server has ended
    assert (opened.sha256, opened.card, opened.augmentation) == (
        source.sha256, source.card, source.augmentation,
    )  # fmt: skip
    assert (opened.place, source.address) == (address, None)
    for ours, theirs in zip(opened.backbone.weights, source.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ranges", [True, False])
def test_files_arrive_byte_by_byte_and_the_second_time_no_request_is_made(server, digest, cache, ranges):
    server.ranges = ranges
    address = f"{server.url}/v1/fish.json#sha256={digest.upper()}"
    folder = weights_address.local_path(address)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        "backbone.json": server.contents["v1/fish.json"], "backbone.keras": NETWORK,
    }  # fmt: skip
    asked = server.requests
    assert weights_address.local_path(address) == folder == cache / digest and server.requests == asked == 2


def test_paths_and_file_urls_have_digests_too(server, digest, tmp_path, monkeypatch):
    for name, content in server.contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for i, place in enumerate(
        (f"{tmp_path}/v1/fish.json", f"file://{tmp_path}/v1/fish.json", "v1/fish.json")
    ):
        monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / f"cache{i}"))
        assert (
            weights_address.local_path(f"{place}#sha256={digest}") / "backbone.keras"
        ).read_bytes() == NETWORK
        assert "refused: its SHA-256 is" in error_of(f"{place}#sha256={'0' * 64}")


def test_a_card_of_another_digest_is_refused_before_its_network_is_downloaded(server, digest, cache):
    wrong = digest[:-1] + ("1" if digest[-1] == "0" else "0")
    line = error_of(f"{server.url}/v1/fish.json#sha256={wrong}")
    assert line.startswith(
        f"weights={server.url}/v1/fish.json: refused: its SHA-256 is {digest}, the address"
    )
    assert wrong in line and kept(cache) == [] and server.requests == 1


def test_a_card_whose_normalisation_was_changed_is_refused(server, digest, cache):
    """Its own digests agree: only the one of the address tells."""
    card = json.loads(server.contents["v1/fish.json"])
    card["views"]["mean"] = [0.9, 0.9, 0.9]
    server.contents["v1/fish.json"] = backbone_file.card_text(card).encode()
    assert "refused: its SHA-256" in error_of(f"{server.url}/v1/fish.json#sha256={digest}")
    assert kept(cache) == []


def test_a_network_of_another_card_is_refused(server, digest, cache):
    server.contents["v1/fish.keras"] = server.contents["v1/fish.keras"][:-1] + b"?"
    line = error_of(f"{server.url}/v1/fish.json#sha256={digest}")
    assert line.startswith(f"weights={server.url}/v1/fish.keras: refused") and "its card asks for" in line
    assert kept(cache) == ["backbone.json"]  # and the next time both are asked for


def test_missing_files_and_dropped_connections(server, digest, cache):
    address = f"{server.url}/v1/fish.json#sha256={digest}"
    server.fail = lambda n, request: 0 if n == 2 else None  # the network's first answer breaks off
    weights_address.local_path(address)
    assert server.failed == 1 and len(kept(cache)) == 2
    (cache / digest / "backbone.keras").unlink()
    del server.contents["v1/fish.keras"]
    assert (
        error_of(address)
        == f"weights={server.url}/v1/fish.keras: cannot be read (No such file or directory)."
    )


def test_a_damaged_copy_in_the_cache_is_not_opened_and_the_line_says_what_to_remove(server, digest, cache):
    address = f"{server.url}/v1/fish.json#sha256={digest}"
    weights_address.local_path(address)
    copy = cache / digest / "backbone.keras"
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    assert f"Remove {copy.parent} to download it again." in error_of(address)


@pytest.mark.parametrize(
    "weights",
    [
        "https://host/fish.json", "https://host/fish.keras", "s3://bucket/fish.json#sha256=12",
        "https://host/fish.keras#sha256=" + "0" * 64, "https://host/.json#sha256=" + "0" * 64,
        "https://host/fish.json#sha256=" + "g" * 64, "fish.keras#sha256=" + "0" * 64,
    ],
)  # fmt: skip
def test_other_forms_are_refused_before_any_request(weights):
    assert error_of(weights).startswith(f"weights={weights}: must be hf://USER/NAME, or the address of a")


def test_a_card_without_a_digest_is_no_card(tmp_path):
    for content in ("[]", "{}", "no JSON", "[" * 10**5):
        (tmp_path / "fish.json").write_text(content)
        address = f"{tmp_path}/fish.json#sha256={digests.sha256(tmp_path / 'fish.json')}"
        assert error_of(address).endswith("is not the card of a backbone: it has no SHA-256.")


def test_networks_and_the_hub_are_no_such_addresses():
    ours = [f"https://host/a.json#sha256={'0' * 64}", "hf://anna/birds", f"file:///a.json#sha256={'0' * 64}"]
    assert all(map(weights_address.is_address, ours))
    others = ["runs/x", "file:/a.keras", "hub:hf://anna/vit", "hub:kaggle://a/b", "keras:ResNet50+imagenet"]
    assert not any(map(weights_address.is_address, others))
    assert [is_network(text) for text in others] == [False, True, True, True, True]
    assert not any(map(is_network, ours))


def test_folders_of_results_have_plain_names():
    card = f"https://host/a b$/fish é.json#sha256={'a1' * 32}"
    assert str(weights_address.results_folder(card)) == "runs/fish--a1a1a1a1"
    assert str(weights_address.results_folder("hf://anna/birds@main")) == "runs/anna-birds"


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    line = error_of(f"https://host/fish.json#sha256={'0' * 64}")
    assert line.endswith("URLs need fsspec: pip install 'simsiam-tf[remote]'.")
