"""hf://USER/NAME in the place of a folder: downloaded, checked, kept apart from results; else one line."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs simsiam-tf[hub]")

from helpers import hub_server, places, small_backbones
from helpers.hub_server import Repository

import simsiam_tf as ss
from simsiam_tf import config, embed, export, knn_eval, neighbours
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.features import embedding_file
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained import hub as addresses
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import supervised

hub = hub_server.hub  # the fixture
ADDRESS = "hf://anna/birds"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATIONS["cifar"], channels=3)


@pytest.fixture
def files(workdir):
    return {
        f"backbone.{kind}": (workdir / "export" / f"backbone.{kind}").read_bytes()
        for kind in ("keras", "json")
    }


@pytest.fixture
def repository(hub, files):
    hub.repositories["anna/birds"] = Repository(
        {**files, "README.md": b"# birds", "model.safetensors": b"large"}
    )
    return hub.repositories["anna/birds"]


def error_of(weights):
    with pytest.raises(UserError) as error:
        ss.from_pretrained(weights)
    line = str(error.value)
    assert line.startswith(f"weights={weights}: ") and "\n" not in line
    return line


def test_a_backbone_of_the_hub_is_the_one_that_was_pushed(workdir, hub, repository):
    ours, theirs = ss.open_pretrained(str(workdir)), ss.from_pretrained(ADDRESS)
    assert theirs.sha256 == ours.sha256 and theirs.augmentation == ours.augmentation
    assert theirs.card == ours.card and theirs.address == f"{ADDRESS}@{repository.branches['main']}"
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(theirs.backbone(images), ours.backbone(images))
    asked = [request for request in hub.requests if "README" in request or "safetensors" in request]
    assert asked == []  # no file that is not read


BOTH_WAYS = """
import sys
from simsiam_tf import embed
weights, data = sys.argv[1:]
for name, given in (("hub", "hf://anna/birds"), ("local", weights)):
    assert embed.main([f"--weights={given}", f"--data={data}", f"--out={name}.npz"]) == 0
"""


@pytest.mark.slow
def test_export_push_embed(workdir, hub, monkeypatch, tmp_path):
    """In a process whose environment names the endpoint, another cache and the token; equal to the bit."""
    monkeypatch.setenv("HF_TOKEN", "writer")
    assert export.main([f"--weights={workdir}", "--hub", "--push=anna/birds", "--private", "--out=hub"]) == 0
    (tmp_path / "photos").mkdir()
    data = places.write_folder(tmp_path / "photos")
    environment = {**os.environ, **hub_server.settings(hub, tmp_path / "home"), "HF_TOKEN": "reader"}
    argv = [sys.executable, "-c", BOTH_WAYS, str(workdir), data]
    done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs, ours = (embedding_file.read_embeddings(tmp_path / f"{name}.npz") for name in ("hub", "local"))
    np.testing.assert_array_equal(theirs.features, ours.features)
    assert theirs.about["sha256"] == ours.about["sha256"] and len(theirs.names) == places.COUNT
    assert list((tmp_path / "home").rglob("backbone.keras")) and not list(
        (tmp_path / "hf_home").rglob("*.keras")
    )


@pytest.mark.slow
def test_results_go_to_the_working_folder_and_not_to_the_cache(hub, repository, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    data = places.write_folder(tmp_path / "photos")
    assert knn_eval.main([f"--weights={ADDRESS}", f"--data={data}", "--k=5", "--noraw_pixels"]) == 0
    assert "written to runs/anna-birds/knn.json" in capsys.readouterr().out
    results = tmp_path / "runs" / "anna-birds"
    assert {p.name for p in results.iterdir()} == {"knn.json", "features"}
    assert any((results / "features").glob("*.npy"))
    snapshot = addresses.download(ADDRESS)
    assert {p.name for p in snapshot.iterdir()} == {"backbone.keras", "backbone.json"}
    linear = config.LinearConfig(weights=f"{ADDRESS}@main")
    assert supervised.workdir_of(linear) == Path("runs/anna-birds/linear")


@pytest.mark.slow
def test_embeddings_record_the_commit(hub, repository, files, tmp_path, capsys):
    """`neighbours` finds the backbone that made them when the repository has another, and offline."""
    (tmp_path / "photos").mkdir()
    data = places.write_folder(tmp_path / "photos")
    assert embed.main([f"--weights={ADDRESS}", f"--data={data}", "--out=x.npz"]) == 0
    about = embedding_file.read_embeddings(tmp_path / "x.npz").about
    assert about["weights"] == f"{ADDRESS}@{repository.branches['main']}"
    repository.commit({})
    hub.fail = lambda path: 500
    query = tmp_path / "query.png"
    shutil.copy(tmp_path / "photos" / places.name(3), query)
    assert neighbours.main(["--embeddings=x.npz", f"--query={query}", "--k=1"]) == 0
    out, err = capsys.readouterr()
    assert places.name(3) in out and err == ""


@pytest.mark.slow
def test_revisions(hub, repository, files, tmp_path):
    first = repository.branches["main"]
    other = small_backbones.exported(tmp_path / "other", AUGMENTATIONS["grayscale"], channels=1)
    export = other / "export"
    repository.commit(
        {f"export/{p.name}": p.read_bytes() for p in export.iterdir()}
    )  # a work folder as it is
    repository.branches["v1/old"] = first
    newest = ss.from_pretrained(ADDRESS)
    assert newest.channels == 1 and newest.path.parent.name == "export"
    assert ss.from_pretrained(f"{ADDRESS}@v1/old").channels == 3
    assert ss.from_pretrained(f"{ADDRESS}@{first}").channels == 3
    repository.commit(files)
    assert ss.from_pretrained(ADDRESS).channels == 3  # the same process sees the new commit
    said = error_of(f"{ADDRESS}@v9")
    assert "has no branch, tag or commit v9. Leave it out for the newest" in said


@pytest.mark.parametrize(
    "weights",
    ["hf://birds", "hf://anna/birds/backbone.keras", "hf://datasets/anna/birds", "hf://../birds", "hf://a/b@",
     "hf://a/b@../../x", "hf://a/b@x/../y", "hf:// a/b", "hf://a/b\n"],
)  # fmt: skip
def test_other_forms_are_refused(weights, hub):
    with pytest.raises(UserError, match="must be hf://USER/NAME, or hf://USER/NAME@REVISION"):
        ss.from_pretrained(weights)
    assert hub.requests == []


@pytest.mark.parametrize("token", ["", "writer"])
def test_a_missing_repository(hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    assert "no such repository, or a private one. Check the name; for a private one set HF_TOKEN" in error_of(
        "hf://anna/nothing"
    )


def test_a_private_repository_needs_a_token(hub, repository, monkeypatch):
    repository.private = True
    assert "no such repository, or a private one" in error_of(ADDRESS)
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert ss.from_pretrained(ADDRESS).features == 64


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "your token has no right to this"), (429, "answered with status 429"), (503, "with status 503")],
)
def test_refusals(hub, repository, status, said):
    hub.fail = lambda path: status
    assert said in error_of(ADDRESS)


def test_without_a_network_the_cache_is_used_and_that_is_said(hub, repository, monkeypatch, capsys):
    assert "http://127.0.0.1:9 cannot be reached" in unreachable(monkeypatch, hub)
    ss.from_pretrained(ADDRESS)
    assert capsys.readouterr().err == ""
    hub.fail = lambda path: 503
    assert ss.from_pretrained(ADDRESS).features == 64
    assert (
        capsys.readouterr().err == f"{ADDRESS}: the Hub cannot be reached, so the copy in the cache is used\n"
    )


def unreachable(monkeypatch, hub):
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        return error_of(ADDRESS)


def test_an_incomplete_file_is_not_taken(hub, repository):
    hub.truncated = {"backbone.keras"}
    assert "a file arrived incomplete" in error_of(ADDRESS)
    hub.truncated = set()
    assert ss.from_pretrained(ADDRESS).features == 64


def test_a_file_of_another_card_is_damaged(hub, repository, files):
    repository.commit({**files, "backbone.keras": files["backbone.keras"] + b"\0"})
    said = error_of(ADDRESS)
    cache = addresses.download(ADDRESS).parents[1]
    assert "its SHA-256 differs" in said and said.endswith(f"Remove {cache} to download it again.")


def test_a_file_that_could_do_more_than_compute_is_refused(hub, tmp_path):
    path = tmp_path / "evil.keras"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Lambda(lambda x: x)]).save(path)
    hub.repositories["anna/evil"] = Repository({"backbone.keras": path.read_bytes()})
    assert "refused: it has a Lambda, which runs code of its own" in error_of("hf://anna/evil")


def test_a_repository_without_a_backbone_of_ours(hub):
    hub.repositories["anna/timm"] = Repository({"config.json": b"{}", "model.safetensors": b"1"})
    said = error_of("hf://anna/timm")
    assert "has no backbone.keras of simsiam_tf, but config.json, model.safetensors." in said
    assert "hf download anna/timm model.safetensors, then python -m simsiam_tf.convert" in said
    hub.repositories["anna/empty"] = Repository()
    assert "but other files. Name a repository that `export` wrote." in error_of("hf://anna/empty")
    assert not any("resolve" in request for request in hub.requests)


def test_heads_beside_are_found_on_the_hub(hub, tmp_path):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    images = keras.Input((4, 4, 3))
    backbone = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    backbone_file.export_networks({"backbone": backbone, "projector": network}, tmp_path, {})
    hub.repositories["anna/heads"] = Repository(
        {p.name: p.read_bytes() for p in (tmp_path / "export").iterdir()}
    )
    head = backbone_file.load_beside("hf://anna/heads", "projector")
    assert head is not None
    np.testing.assert_array_equal(head.get_weights()[0], network.get_weights()[0])
    assert backbone_file.load_beside("hf://anna/heads", "predictor") is None


def test_an_address_is_no_path(tmp_path):
    run = config.PretrainConfig(data="digits", workdir="x", weights=ADDRESS).absolute()
    assert run.weights == ADDRESS and Path(run.workdir or "").is_absolute()
    assert dataclasses.replace(run, weights="runs/x").absolute().weights == f"{os.getcwd()}/runs/x"


def test_a_missing_library_is_named(monkeypatch, hub):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert error_of(ADDRESS).endswith("needs huggingface_hub: pip install 'simsiam-tf[hub]'.")
