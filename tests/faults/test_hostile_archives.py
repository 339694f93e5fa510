"""Archives, cards and files of other kinds made to harm, and an export that is cut off."""

import pickle
import shutil
import stat
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hostile_files import Payload, good, packed, refused

from simsiam_tf import export, nets
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError


def lying(path, by):
    """config.json is longer by so much than all headers say, and as the checksum has it."""
    said = good()["config.json"]
    long = said + bytes(by)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in good().items():
            config = name == "config.json"
            file.writestr(name, long if config else content, zipfile.ZIP_DEFLATED if config else None)
    data = path.read_bytes()
    for old, new in ((zlib.crc32(long), zlib.crc32(said)), (len(long), len(said))):
        assert data.count(struct.pack("<I", old)) == 2
        data = data.replace(struct.pack("<I", old), struct.pack("<I", new))
    path.write_bytes(data)
    return path


def peak(call):
    tracemalloc.start()
    try:
        call()
    finally:
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return top


def test_a_member_longer_than_its_header_does_not_expand(tmp_path):
    path = lying(tmp_path / "hostile.keras", 2**26)
    assert path.stat().st_size < 2**21
    assert peak(lambda: zipfile.ZipFile(path).read("config.json")) > 2**26  # without care
    assert peak(lambda: refused(path, "config.json is compressed")) < 2**24


def test_a_long_table_of_contents_is_not_read(tmp_path):
    path = packed(tmp_path / "hostile.keras", {**good(), **{f"{i:0200}": b"" for i in range(6000)}})
    assert peak(lambda: zipfile.ZipFile(path)) > 2**22
    assert peak(lambda: refused(path, "holds more files than Keras writes")) < 2**20
    whole = packed(path, good()).read_bytes()
    end = whole[-22:]
    path.write_bytes(whole[:-22] + b"PK\6\7" + bytes(16) + end)  # says that another table is elsewhere
    refused(path, "its table of contents is not at its end")
    path.write_bytes(whole[:-2] + b"\3\0abc")  # a comment could hide another end
    refused(path, "not an archive, or cut off")


def test_links_and_repeated_names_in_an_archive_are_refused(tmp_path):
    for name in ("config.json", "model.weights.h5"):
        path = tmp_path / "hostile.keras"
        with zipfile.ZipFile(path, "w") as file:
            for other, data in good().items():
                info = zipfile.ZipInfo(other)
                info.external_attr = ((stat.S_IFLNK if other == name else stat.S_IFREG) | 0o777) << 16
                file.writestr(info, b"/etc/passwd" if other == name else data)
        refused(path, f"its {name} is a link")
    with zipfile.ZipFile(packed(path, good()), "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("config.json", good()["config.json"])
    refused(path, "instead of")


@pytest.mark.parametrize("suffix", ["pth", "pkl", "pt", "ckpt", "h5", "npz", "safetensors", "KERAS", ""])
def test_other_kinds_of_files_are_not_opened(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(pickle.dumps(Payload(canary := tmp_path / "canary")))
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", None)
        refused(path, "only .keras files are opened: (convert it first|where you trust it)")
    if suffix == "pkl":
        refused(shutil.copy(path, tmp_path / "renamed.keras"), "not an archive")
        pickle.loads(path.read_bytes())  # the payload is a real one
        assert canary.exists()


def test_an_impossible_path_gets_one_line(capsys):
    with pytest.raises(UserError, match="cannot be opened .File name too long") as caught:
        backbone_file.load_backbone("x" * 5000)
    assert len(str(caught.value)) < 300
    assert export.main([f"--weights={'x' * 5000}"]) == 2
    assert "File name too long" in (err := capsys.readouterr().err) and len(err.splitlines()) == 1


def test_a_saved_model_is_not_opened(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="is a SavedModel, which can run code, and only .keras files are"):
        backbone_file.load_backbone(str(tmp_path))


CARDS = ["{", "[]", "7", "[" * 100_000, '{"sha256": 3}', " " * 2**21, b"\xff\xfe"]


@pytest.mark.parametrize("text", CARDS, ids=lambda text: repr(text[:5]))
def test_a_damaged_card_gets_one_line(tmp_path, text):
    (tmp_path / "export").mkdir()
    path = packed(tmp_path / backbone_file.EXPORTED, good())
    path.with_suffix(".json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(path, "damaged .above 1048576 bytes" if len(text) > 2**20 else "damaged")
    assert backbone_file.read_card(tmp_path) == {}


def test_an_interrupted_export_is_refused(tmp_path, monkeypatch):
    backbones = [nets.resnet("resnet10", "cifar", 0.05, channels) for channels in (1, 3)]
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "writing.keras").symlink_to(victim)
    path = backbone_file.export_network(backbones[0], tmp_path, {"step": 1})
    assert victim.read_text() == "mine" and backbone_file.read_card(tmp_path)["step"] == 1
    before, replaced = backbone_file.load_backbone(str(tmp_path)).input_shape, type(path).replace
    for name, expected in (("backbone.keras", before), ("backbone.json", None)):

        def ending(self, target, name=name):
            if Path(target).name == name:
                raise KeyboardInterrupt
            return replaced(self, target)

        monkeypatch.setattr(type(path), "replace", ending)
        with pytest.raises(KeyboardInterrupt):
            backbone_file.export_network(backbones[1], tmp_path, {"step": 2})
        if expected:
            assert backbone_file.load_backbone(str(tmp_path)).input_shape == expected
            assert backbone_file.read_card(tmp_path)["step"] == 1
        else:
            with pytest.raises(UserError, match="SHA-256 differs"):
                backbone_file.load_backbone(str(tmp_path))
            assert backbone_file.read_card(tmp_path) == {}
