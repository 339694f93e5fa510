"""`export --hub --push` against a stand-in of the Hub: one commit, or a line that says what to do."""

import json
import sys

import pytest

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub: pip install 'simsiam-tf[hub]'")
pytest.importorskip("safetensors", reason="needs safetensors: pip install 'simsiam-tf[hub]'")

from helpers import hub_server, small_backbones
from helpers.hub_server import Repository

from simsiam_tf import export as command
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.model_export import hub_push
from simsiam_tf.pretrained.hub import import_library
from simsiam_tf.runtime.errors import UserError

hub = hub_server.hub  # the fixture
OURS = {"backbone.keras", "backbone.json", "README.md"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATIONS["cifar"], channels=3)


@pytest.fixture(scope="module")
def folder(workdir):
    """Exported with a license, and with a file beside, as `knn_eval --weights=FOLDER` writes it."""
    assert command.main([f"--weights={workdir}", "--hub", "--license=cc-by-4.0"]) == 0
    (workdir / "export" / "hub" / "knn.json").write_text("{}")
    return workdir / "export" / "hub"


@pytest.fixture
def writer(monkeypatch, hub):
    monkeypatch.setenv("HF_TOKEN", "writer")
    return hub


@pytest.mark.slow
def test_the_command_pushes_in_one_commit(workdir, tmp_path, writer, capsys):
    earlier = {"model.safetensors": b"of another network", "notes.txt": b"of the owner", "README.md": b"old"}
    repository = writer.repositories["anna/birds"] = Repository({**earlier, ".gitattributes": b"lfs"})
    out = tmp_path / "hub"
    assert command.main([f"--weights={workdir}", "--hub", f"--out={out}", "--push=anna/birds"]) == 0
    said, err = capsys.readouterr()
    assert f"pushed  {writer.url}/anna/birds: take it with --weights=hf://anna/birds" in said and err == ""
    assert len(repository.log) == 1
    assert set(repository.files) == OURS | {"notes.txt", ".gitattributes"}
    assert all(repository.files[name] == (out / name).read_bytes() for name in OURS)
    weights = (workdir / "export" / "backbone.keras").read_bytes()
    assert repository.files["backbone.keras"] == weights
    assert writer.stored == {hub_server.sha256(weights): weights}


@pytest.mark.slow
def test_a_repository_is_created_with_the_files_of_the_export_alone(folder, writer):
    assert hub_push.push_folder(folder, "anna/birds") == f"{writer.url}/anna/birds"
    repository = writer.repositories["anna/birds"]
    assert set(repository.files) == OURS | {".gitattributes"} and not repository.private


def test_private_repositories(folder, writer):
    hub_push.push_folder(folder, "anna/birds", private=True)
    assert writer.repositories["anna/birds"].private
    public = writer.repositories["anna/open"] = Repository({"a": b"a"})
    with pytest.raises(UserError, match="exists, and is public"):
        hub_push.push_folder(folder, "anna/open", private=True)
    assert public.log == []


REFUSED = {  # token, repository, part of a request that fails, with which status → what is said
    "no token": (
        "",
        "anna/birds",
        "",
        0,
        "does not know you. To log in, set HF_TOKEN, or run: hf auth login",
    ),
    "unknown token": ("wrong", "anna/birds", "", 0, "does not know you. To log in"),
    "may only read": ("reader", "ben/birds", "", 0, "your token has no right to this"),
    "of somebody else": ("writer", "ben/birds", "", 0, "your token has no right to this"),
    "full store": ("writer", "anna/birds", "/lfs/", 507, "answered with status 507"),
    "no commit": ("writer", "anna/birds", "/commit/", 409, "answered with status 409"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_push_that_fails_says_why_and_leaves_both_sides_whole(folder, hub, monkeypatch, case):
    token, name, part, status, said = REFUSED[case]
    monkeypatch.setenv("HF_TOKEN", token)
    before = hub.repositories["anna/birds"] = Repository({"README.md": b"before"})
    hub.fail = lambda path: status if part and part in path else None
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError) as error:
        hub_push.push_folder(folder, name)
    line = str(error.value)
    assert line.startswith(f"push={name}: not uploaded: ") and said in line and "\n" not in line
    assert line.endswith(f"{folder} is complete; to push it again: hf upload {name} {folder}")
    assert before.files == {"README.md": b"before"} and before.log == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_header_that_the_hub_refuses_is_not_pushed(folder, writer, monkeypatch):
    monkeypatch.setattr(hub_server, "UNKNOWN_LICENSE", "cc-by-4.0")
    with pytest.raises(UserError, match=r'refuses its README.md \("license" must be one of the known ones\)'):
        hub_push.push_folder(folder, "anna/birds")
    assert "anna/birds" not in writer.repositories


@pytest.mark.parametrize(
    ("endpoint", "said"), [("", "does not know you"), ("http://127.0.0.1:9", "be reached")]
)
def test_who_cannot_push_hears_it_before_the_export(
    workdir, tmp_path, hub, monkeypatch, capsys, endpoint, said
):
    import huggingface_hub

    if endpoint:
        monkeypatch.setenv("HF_TOKEN", "writer")
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    argv = [f"--weights={workdir}", "--hub", f"--out={tmp_path / 'hub'}", "--push=anna/birds"]
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "--push=anna/birds: " in err and said in err
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--push=anna/birds"], "--push=anna/birds has no effect with no --hub"),
        (["--license=mit"], "--license=mit has no effect with no --hub"),
        (["--hub", "--private"], "--private=True has no effect with no --push"),
        (["--hub", "--push=birds"], "--push=birds: must be USER/NAME"),
        (["--hub", "--push=hf://anna/birds"], "--push=hf://anna/birds: must be USER/NAME"),
        (["--hub", "--license=My own"], "must be a name of the Hub's list"),
    ],
)
def test_flags(flags, said, capsys):
    assert command.main(["--weights=nowhere", *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub: pip install 'simsiam-tf\[hub\]'"):
        import_library("push=a/b")


@pytest.mark.slow
def test_the_license_travels_with_the_backbone(folder, tmp_path, writer):
    """Into the header, the card, and what is exported of it again."""
    hub_push.push_folder(folder, "anna/birds")
    files = writer.repositories["anna/birds"].files
    assert b"\nlicense: cc-by-4.0\n" in files["README.md"]
    assert json.loads(files["backbone.json"])["license"] == "cc-by-4.0"
    assert command.main(["--weights=hf://anna/birds", "--hub"]) == 0
    again = tmp_path / "runs" / "anna-birds" / "hub"
    assert all((again / name).read_bytes() == files[name] for name in OURS)
