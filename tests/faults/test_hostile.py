"""Files made to harm: refused with a line, nothing run, nothing written elsewhere, memory bounded."""

import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simsiam_tf import nets, weights
from simsiam_tf.data import folder, headers, open_source
from simsiam_tf.errors import UserError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small backbone's file: what every hostile one is made from."""
    path = tmp_path_factory.mktemp("good") / "good.keras"
    nets.resnet("resnet10", "cifar", 0.05, 1).save(path)
    return path


@pytest.fixture
def canary(tmp_path):
    """A file that a payload would make."""
    return tmp_path / "canary"


def rebuilt(good, to, change):
    """A copy whose members {name: bytes} went through `change`."""
    with zipfile.ZipFile(good) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = change(members) or members
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return to


def with_layer(config):
    """A change that puts a layer's configuration into the model's."""

    def change(members):
        whole = json.loads(members["config.json"])
        whole["config"]["layers"].append({"name": "x", "inbound_nodes": [], "build_config": {}, **config})
        members["config.json"] = json.dumps(whole).encode()

    return change


def with_weights(change):
    """A change of the HDF5 file."""

    def changed(members):
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        members["model.weights.h5"] = buffer.getvalue()

    return changed


def first(file):
    """(group, name) of a data set."""
    found = []
    file.visititems(lambda n, o: found.append(o) if isinstance(o, h5py.Dataset) else None)
    return found[0].parent, found[0].name.rpartition("/")[2]


def external_link(file):
    group, name = first(file)
    del group[name]
    group[name] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file):
    group, name = first(file)
    del group[name]
    group[name] = h5py.SoftLink("/nowhere")


def external_storage(file):
    group, name = first(file)
    shape = group[name].shape
    del group[name]
    group.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file):
    group, name = first(file)
    layout = h5py.VirtualLayout(group[name].shape, "f4")
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", group[name].shape)
    del group[name]
    group.create_virtual_dataset(name, layout)


def huge(file):
    group, name = first(file)
    del group[name]
    group.create_dataset(name, (2**18, 2**18), "f4", chunks=(1, 1024))


def circle(file):
    file["circle"] = file["/layers"]
    file["/layers"]["circle"] = file["/layers"]


def text_weights(file):
    group, name = first(file)
    del group[name]
    group[name] = np.array([b"not numbers"], dtype=h5py.string_dtype())


def lambda_layer(canary):
    import base64
    import marshal

    code = compile(f"lambda x: open({str(canary)!r}, 'w').write('x')", "x", "eval").co_consts[0]
    packed = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": packed, "defaults": None, "closure": None}}
    return {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x", "function": function}}


def calls(module, name, canary):
    return {
        "module": module,
        "class_name": name,
        "config": {"command": f"touch {canary}"},
        "registered_name": name,
    }


def deep(members):
    members["config.json"] = b"[" * 200_000


MODELS = {  # name → (change of a good archive, given the canary; what the line says)
    "a Lambda layer": (lambda c: with_layer(lambda_layer(c)), "runs code of its own"),
    "os.system as a layer": (lambda c: with_layer(calls("os", "system", c)), "asks for os.system"),
    "exec as a layer": (lambda c: with_layer(calls("builtins", "exec", c)), "asks for builtins.exec"),
    "subprocess behind our own package": (
        lambda c: with_layer(calls("simsiam_tf.nets.conv.tf.os", "system", c)), "asks for"),
    "a downloader of Keras": (
        lambda c: with_layer(calls("keras.src.utils.file_utils", "get_file", c)), "asks for keras.src.utils"),
    "a function of Keras": (lambda c: with_layer(calls("keras", "config", c)), "asks for keras.config"),
    "a SavedModel as a layer": (
        lambda c: with_layer({**calls("keras.layers", "TFSMLayer", c), "config": {"filepath": "/tmp"}}),
        "runs code of its own"),
    "a torch module as a layer": (
        lambda c: with_layer(calls("keras.layers", "TorchModuleWrapper", c)),
        "runs code of its own"),
    "an external link": (lambda c: with_weights(external_link), "point elsewhere"),
    "a soft link": (lambda c: with_weights(soft_link), "point elsewhere"),
    "weights in another file": (lambda c: with_weights(external_storage), "in another file"),
    "virtual weights": (lambda c: with_weights(virtual), "in another file"),
    "weights of 256 GiB": (lambda c: with_weights(huge), "claim more than they hold"),
    "groups in a circle": (lambda c: with_weights(circle), "point to themselves"),
    "weights of text": (lambda c: with_weights(text_weights), "are no numbers"),
    "a path upwards": (lambda c: lambda m: {**m, "../../escaped": b"x"}, r"\.\./\.\./escaped"),
    "an absolute path": (lambda c: lambda m: {**m, str(c): b"x"}, "which Keras does not write"),
    "a pickle more": (lambda c: lambda m: {**m, "x.pkl": pickle.dumps(Payload(c))}, "x.pkl"),
    "an expanding configuration": (lambda c: None, "expands from"),
    "expanding weights": (lambda c: None, "expands from"),
    "a configuration without end": (lambda c: deep, "no Keras model"),
    "no weights": (lambda c: lambda m: {"config.json": m["config.json"]}, "instead of"),
}  # fmt: skip


class Payload:
    """Makes the canary when unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def files_below(path):
    return sorted(str(p) for p in path.rglob("*"))


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_refused(good, tmp_path, canary, name):
    change, expected = MODELS[name]
    path = tmp_path / "hostile.keras"
    if "expanding" in name:
        large = "config.json" if "configuration" in name else "model.weights.h5"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, zipfile.ZipFile(good) as from_:
            for member in from_.namelist():
                archive.writestr(member, from_.read(member) if member != large else bytes(2**27))
    else:
        rebuilt(good, path, change(canary))
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=expected) as caught:
        weights.load(str(path))
    assert "hostile.keras" in str(caught.value) and "\n" not in str(caught.value)
    assert files_below(tmp_path) == before and not canary.exists()


def test_a_good_model_is_not_refused(good, tmp_path):
    assert len(weights.load(str(good)).weights) > 20
    again = rebuilt(good, tmp_path / "again.keras", lambda members: None)
    assert len(weights.load(str(again)).weights) > 20


def test_a_link_in_an_archive_is_refused(good, tmp_path):
    path = tmp_path / "hostile.keras"
    with zipfile.ZipFile(good) as from_, zipfile.ZipFile(path, "w") as archive:
        for name in from_.namelist():
            info = zipfile.ZipInfo(name)
            if name == "model.weights.h5":
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, b"/etc/passwd" if name == "model.weights.h5" else from_.read(name))
    with pytest.raises(UserError, match="holds a link"):
        weights.load(str(path))


@pytest.mark.parametrize("suffix", ["pth", "pkl", "pt", "h5", "npz", "pb", "exe"])
def test_other_kinds_of_files_are_not_opened(tmp_path, canary, suffix):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(UserError, match="only .keras files are loaded"):
        weights.load(str(path))
    assert not canary.exists()
    if suffix == "pkl":
        pickle.loads(path.read_bytes())  # the payload is a real one
        assert canary.exists()


@pytest.mark.parametrize("text", ["{", "[]", "7", "[" * 100_000, '{"sha256": 3}'])
def test_a_damaged_card_is_a_line(good, tmp_path, text):
    shutil.copy(good, tmp_path / "a.keras")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        weights.load(str(tmp_path / "a.keras"))


def png(width, height):
    """A PNG that claims so many black pixels, in a few kilobytes for each hundred million."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pack, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    body = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif(side, frames):
    """An animation of so many frames, each of side² pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(buffer, "GIF")
    data = buffer.getvalue()
    start = data.index(b"\x2c")
    return data[:start] + data[start:-1] * frames + data[-1:]


IMAGES = {  # name → (how to make a file there, what is said of it)
    "png of 400 megapixels": (lambda p: p.write_bytes(png(20_000, 20_000)), "20000×20000 pixels"),
    "gif of 4,000 frames": (lambda p: p.write_bytes(gif(1000, 4000)), "an animation with more pixels"),
    "a gigabyte of nothing": (lambda p: (p.touch(), os.truncate(p, 2**30)), "bytes, more than"),
    "a pipe": (os.mkfifo, "no regular file"),
    "a link to a device": (lambda p: p.symlink_to("/dev/zero"), "no regular file"),
    "a link to itself": (lambda p: p.symlink_to(p), "Too many levels of symbolic links"),
    "a link to nowhere": (lambda p: p.symlink_to("/no/such/file"), "No such file"),
    "a link to a text": (lambda p: p.symlink_to("/etc/passwd"), "no image"),
    "a header cut off": (lambda p: p.write_bytes(png(9, 9)[:20]), "header"),
    "nothing": (lambda p: p.write_bytes(b""), "empty file"),
}  # fmt: skip


def normal(root, name="ok.png"):
    Image.fromarray(np.full((30, 30, 3), 99, np.uint8)).save(root / name)


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_named(tmp_path, name):
    make, expected = IMAGES[name]
    normal(tmp_path)
    make(tmp_path / "bad.jpg")
    with pytest.raises(UserError, match="1 of 2 images cannot be decoded, such as bad.jpg"):
        folder.read(str(tmp_path))
    report = tmp_path / "report.json"
    assert folder.read(str(tmp_path), "skip", report).names == ["ok.png"]
    assert expected in json.loads(report.read_text())["unreadable"]["bad.jpg"]


def test_a_folder_that_contains_itself_ends(tmp_path):
    normal(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert folder.read(str(tmp_path)).names == ["ok.png"]


def test_names_that_are_no_utf8_and_names_of_two_lines_work(tmp_path):
    for name in (b"caf\xe9.png", b"two\nlines.png"):
        normal(tmp_path, os.fsdecode(name))
    source = open_source(f"folder:{tmp_path}")
    assert [source.decode(tf.constant(i)).shape for i in range(2)] == [(30, 30, 3)] * 2


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[1]", '{"unreadable": 3}', "\xff"])
def test_a_damaged_report_is_made_again(tmp_path, text):
    normal(tmp_path)
    report = tmp_path / "report.json"
    report.write_text(text)
    assert folder.read(str(tmp_path), "error", report).names == ["ok.png"]
    assert json.loads(report.read_text())["unreadable"] == {}


def test_large_images_are_a_matter_of_choice(tmp_path):
    normal(tmp_path)
    (tmp_path / "large.png").write_bytes(png(1200, 1000))
    assert len(folder.read(str(tmp_path)).names) == 2
    with pytest.raises(UserError, match="such as large.png"):
        folder.read(str(tmp_path), max_megapixels=1.0)


def test_pixels_of_animations_are_counted_frame_by_frame():
    assert headers.gif_pixels(gif(20, 7), 10**9) == 20 * 20 * 7
    for cut in range(13, 200):  # never beyond the end, whatever is missing
        headers.gif_pixels(gif(20, 7)[:cut], 10**9)


def peak(root):
    """MiB at the most of a process that reads a folder."""
    code = (
        "import resource\nfrom simsiam_tf.data import folder\n"
        f"print(len(folder.read({str(root)!r}, 'skip').names))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, mib = done.stdout.split()
    assert int(names) == 1
    return int(mib)


def test_bombs_take_no_memory(tmp_path):
    for name in ("plain", "bombs"):
        (tmp_path / name).mkdir()
        normal(tmp_path / name)
    (tmp_path / "bombs" / "a.png").write_bytes(png(20_000, 20_000))
    (tmp_path / "bombs" / "b.gif").write_bytes(gif(1000, 4000))
    assert peak(tmp_path / "bombs") < peak(tmp_path / "plain") + 150  # decoded, they take 1.2 and 4 GB
