"""Files of PyTorch weights: unusual, damaged, hostile, or impossible to write."""

import errno
import json
import os
import resource
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors: simsiam-tf[convert]")

from simsiam_tf import convert, export, nets
from simsiam_tf.pretrained import backbone_file, initial_weights
from simsiam_tf.pretrained.torch_weights import from_torch, open_checkpoint, to_torch, write_weights
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.errors import UserError


@pytest.fixture(scope="module")
def state():
    keras.utils.set_random_seed(0)
    made = to_torch(nets.resnet10(width=0.125))
    return {k: torch.from_numpy(np.array(v, order="C")) for k, v in made.items()}


@pytest.fixture
def peak():
    """Calls under a limit of memory, 512 MiB above what is used now."""

    def call(function):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, before[1]))
        try:
            return function()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    return call


def refused(path, capsys, *said):
    """Converting ends in one printable line, and makes nothing."""
    out = path.with_name("made")
    assert convert.main([f"--weights={path}", f"--out={out}"]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1 and err.strip().isprintable() and not out.exists()
    for part in said:
        assert part in err


def test_trainable_parameters_are_read(state, tmp_path):
    """What named_parameters and named_buffers give requires gradients."""
    learned = {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()}
    torch.save(learned, tmp_path / "p.pth")
    assert convert.main([f"--weights={tmp_path / 'p.pth'}", f"--out={tmp_path / 'ours'}"]) == 0
    for found in (
        to_torch(backbone_file.load_backbone(str(tmp_path / "ours"))),
        to_torch(from_torch(learned).backbone),
    ):
        assert all((found[k] == v.numpy()).all() for k, v in state.items())


def test_half_precision_is_widened_in_either_format(state, tmp_path):
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(half, tmp_path / "h.pt")
    safetensors.save_file(half, tmp_path / "h.safetensors")
    for name in ("h.pt", "h.safetensors"):
        found = open_checkpoint(tmp_path / name).state
        assert all((found[k] == v.float().numpy()).all() for k, v in half.items())


ODD = {
    "sparse": (lambda t: t.to_sparse(), "is sparse"),
    "sparse rows": (lambda t: t.flatten(1).to_sparse_csr(), "is sparse"),
    "meta": (lambda t: t.to("meta"), "has no values"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is quantised"),
    "complex": (lambda t: t.to(torch.complex64), "is complex"),
    "expanded": (lambda t: t.flatten()[:1].expand(3000, 3000), "is longer than its values"),
}


@pytest.mark.parametrize("kind", ODD)
def test_errors_name_unusual_tensors(state, tmp_path, capsys, kind):
    make, said = ODD[kind]
    torch.save({"state_dict": {**state, "layer1.0.conv1.weight": make(state["layer1.0.conv1.weight"])}},
               tmp_path / "odd.pth")  # fmt: skip
    refused(tmp_path / "odd.pth", capsys, f"layer1.0.conv1.weight {said}", "Save plain tensors: torch.save")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_small_file_takes_little_memory(tmp_path, capsys, peak, legacy):
    one = torch.zeros(1)
    many = torch.zeros(2**20)
    bombs = {
        "expanded": {"conv1.weight": one.expand(10**5, 10**5)},
        "half": {"conv1.weight": one.half().expand(10**5, 10**5)},
        "strided": {"conv1.weight": torch.as_strided(one, (10**5, 10**5), (0, 0))},
        "overlapping": {f"w{i}": many[i : 2**19 + i] for i in range(2000)},
    }
    for name, content in bombs.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert path.stat().st_size < 2**23
        said = "claim more" if name == "overlapping" else "is longer than"
        peak(lambda path=path, said=said: refused(path, capsys, said))


def repacked(source, path, change):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        change(old, new)
    return path


@pytest.mark.slow
def test_archives_that_expand_are_not_opened(state, tmp_path, capsys, peak, monkeypatch):
    whole = tmp_path / "whole.pth"
    torch.save({"conv1.weight": torch.zeros(2**28)}, whole)  # 1 GiB of zeros

    def deflate(old, new):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)

    small = repacked(whole, tmp_path / "small.pth", deflate)
    whole.unlink()
    assert small.stat().st_size < 2**22
    peak(lambda: refused(small, capsys, "is compressed, which torch does not do"))
    torch.save(state, whole)
    appended = tmp_path / "appended.pth"
    appended.write_bytes(whole.read_bytes()[:-2] + b"\4\0none")  # in a comment another end could hide
    refused(appended, capsys, "not an archive, or cut off")
    assert open_checkpoint(whole).state.keys() == state.keys()


def test_names_and_errors_go_to_the_terminal_as_text(state, tmp_path, capsys):
    escape = "\x1b[31mred\x1b[0m\u202e"
    safetensors.save_file({**state, f"fc.{escape}": torch.zeros(2)}, tmp_path / "e.safetensors")
    argv = [f"--weights={tmp_path / 'e.safetensors'}", f"--out={tmp_path / 'ours'}"]
    assert convert.main(argv) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\u202e" not in said and "fc.* (1)" in said
    safetensors.save_file({f"{escape}.{i}": torch.zeros(2) for i in range(3)}, tmp_path / "n.safetensors")
    refused(tmp_path / "n.safetensors", capsys, "fit none of torchvision", "red")
    safetensors.save_file({escape: torch.full((2,), torch.nan)}, tmp_path / "n.safetensors")
    refused(tmp_path / "n.safetensors", capsys, "holds NaN or infinite values")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")  # torch explains itself in bold
    refused(tmp_path / "module.pth", capsys, "save its weights alone")


def test_unwritable_places_get_one_line(state, tmp_path, capsys, monkeypatch):
    keras.utils.set_random_seed(0)
    backbone_file.export_network(nets.resnet10(width=0.125), tmp_path, {"views": {}})
    (tmp_path / "file").write_text("mine")
    torch.save(state, tmp_path / "p.pth")
    commands = [
        (convert.main, f"--weights={tmp_path}", f"--out={tmp_path / 'file' / 'x.safetensors'}"),
        (convert.main, f"--weights={tmp_path}", f"--out={tmp_path / 'file' / 'x.pth'}"),
        (convert.main, f"--weights={tmp_path / 'p.pth'}", f"--out={tmp_path / 'file' / 'x'}"),
        (export.main, f"--weights={tmp_path}", f"--out={tmp_path / 'file' / 'x'}"),
        (export.main, f"--weights={tmp_path}", "--format=keras", f"--out={tmp_path / 'file' / 'x.keras'}"),
        (export.main, f"--weights={tmp_path}", "--hub", f"--out={tmp_path / 'file' / 'hub'}"),
    ]
    for main, *argv in commands:
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert "cannot be written" in err and len(err.strip().splitlines()) == 1

    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(atomic_files.tempfile, "TemporaryFile", refuse)
    for main, *argv in commands:
        assert main([a.replace("/file", "") for a in argv]) == 2
        err = capsys.readouterr().err
        assert "cannot be written (Read-only file system)" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_full_disk_leaves_the_earlier_file(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            write_weights({"a": np.zeros(10**5, np.float32)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_link_at_the_temporary_file_is_not_followed(tmp_path, suffix):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".writing-x{suffix}").symlink_to(victim)
    write_weights({"a": np.zeros(3, np.float32)}, tmp_path / f"x{suffix}")
    assert victim.read_text() == "mine" and open_checkpoint(tmp_path / f"x{suffix}").state["a"].shape == (3,)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_written_arrays_have_torchs_shapes_and_order(tmp_path, suffix):
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 1, 0)
    path = write_weights({"a": kernel, "num_batches_tracked": np.array(0)}, tmp_path / f"x{suffix}")
    load = safetensors.load_file if suffix == ".safetensors" else torch.load
    found = load(path)
    assert found["num_batches_tracked"].shape == () and found["a"].is_contiguous()
    np.testing.assert_array_equal(found["a"].numpy(), kernel)


def test_metadata_of_a_file_is_not_trusted(state, tmp_path, capsys):
    for i, about in enumerate(("[", "7", json.dumps({"stem": "\x1b[31m"}), json.dumps({"stem": ["cifar"]}))):
        path = tmp_path / f"{i}.safetensors"
        safetensors.save_file(state, path, {"simsiam_tf": about})
        assert convert.main([f"--weights={path}", f"--out={tmp_path / str(i)}"]) == 0
        assert "imagenet stem" in capsys.readouterr().out


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    backbone_file.export_network(nets.resnet10(width=0.125), folder, {"views": {}})
    return folder


@pytest.mark.parametrize("value", [[1], None, 3, "abc"], ids=str)
@pytest.mark.parametrize("key", ["networks beside", "configuration", "heads", "epoch"])
def test_a_card_changed_by_hand_gives_no_traceback(exported, tmp_path, key, value):
    path = exported / "export" / "backbone.json"
    card = {k: v for k, v in backbone_file.read_card(exported).items() if k in ("file", "sha256", "views")}
    path.write_text(backbone_file.card_text({**card, key: value}))
    assert backbone_file.load_beside(exported, "projector") is None
    assert initial_weights._fitting_options("projector", str(exported)).startswith("its own options")
    argv = [f"--weights={exported}", f"--out={tmp_path / 'x.pth'}", "--layout=facebookresearch"]
    assert convert.main(argv) == 0
    assert open_checkpoint(tmp_path / "x.pth").epoch == (3 if (key, value) == ("epoch", 3) else 0)


@pytest.mark.parametrize("epoch", [True, -1, float("nan"), float("inf"), 10**400], ids=lambda e: str(e)[:5])
def test_epochs_of_a_card_must_be_numbers(exported, tmp_path, epoch):
    path = exported / "export" / "backbone.json"
    path.write_text(backbone_file.card_text({**backbone_file.read_card(exported), "epoch": epoch}))
    argv = [f"--weights={exported}", f"--out={tmp_path / 'x.pth'}", "--layout=facebookresearch"]
    assert convert.main(argv) == 0 and open_checkpoint(tmp_path / "x.pth").epoch == 0
