"""Features on disk are extracted once for what they depend on, and resumed after an interruption."""

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from helpers import small_backbones

from simsiam_tf.data import AUGMENTATIONS, from_arrays, open_source, subset
from simsiam_tf.features import extract, feature_file, store
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError

AUGMENTATION = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return open_pretrained(
        str(small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATION, channels=1))
    )


@pytest.fixture(scope="module")
def images():
    return subset(open_source("digits"), np.arange(200))


def test_stored_features_are_those_of_extract(known, images, tmp_path):
    rows = store.stored_features(known, images, tmp_path, batch_size=64)
    assert isinstance(rows, np.memmap) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows, extract(known.backbone, images, known.views, batch_size=64))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".npy"]


def test_stored_features_are_extracted_once(known, images, tmp_path, monkeypatch):
    store.stored_features(known, images, tmp_path)
    monkeypatch.setattr(store, "_extract", None)
    store.stored_features(known, images, tmp_path)
    with pytest.raises(TypeError):  # other images
        store.stored_features(known, subset(images, np.arange(199)), tmp_path)
    with pytest.raises(TypeError):  # another size of them
        store.stored_features(
            dataclasses.replace(known, augmentation=AUGMENTATIONS["grayscale"]), images, tmp_path
        )
    with pytest.raises(TypeError):  # other weights
        store.stored_features(dataclasses.replace(known, sha256="0" * 64), images, tmp_path)
    pixels = images.images.copy()
    pixels[1, 4, 4] ^= 1  # of one image
    with pytest.raises(TypeError):
        store.stored_features(known, from_arrays(images.name, pixels), tmp_path)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    with pytest.raises(TypeError):  # other arithmetic
        store.stored_features(open_pretrained(str(known.path)), images, tmp_path)


def test_an_interrupted_extraction_is_resumed(known, images, tmp_path, monkeypatch):
    whole = np.array(store.stored_features(known, images, tmp_path / "whole", batch_size=32))
    monkeypatch.setattr(feature_file, "SYNC_SECONDS", 0.0)
    encode, calls = store.forward(known.backbone), []

    def failing(_):
        def three(x):
            calls.append(len(x))
            if len(calls) == 4:
                raise KeyboardInterrupt
            return encode(x)

        return three

    with monkeypatch.context() as broken:
        broken.setattr(store, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            store.stored_features(known, images, tmp_path / "ended", batch_size=32)
        calls[:] = [0] * 10
        shutil.copytree(tmp_path / "ended", tmp_path / "damaged")
        rows = store.stored_features(known, images, tmp_path / "ended", batch_size=32)
        assert sum(calls) == 200 - 3 * 32
    np.testing.assert_array_equal(rows, whole)
    file = next((tmp_path / "damaged").glob("*.writing.npy"))
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    np.testing.assert_array_equal(
        store.stored_features(known, images, tmp_path / "damaged", batch_size=32), whole
    )


def test_a_damaged_file_is_extracted_anew(known, images, tmp_path, capsys):
    rows = np.array(store.stored_features(known, images, tmp_path))
    file, note = next(tmp_path.glob("*.npy")), next(tmp_path.glob("*.json"))
    whole, told = file.read_bytes(), note.read_text()
    flipped = bytearray(whole)
    flipped[5000] ^= 1
    damages = [whole[:-10], whole + b"x", whole[:4000] + bytes(100) + whole[4100:], bytes(flipped), b""]
    np.save(tmp_path / "objects", np.array([{}]), allow_pickle=True)
    damages.append((tmp_path / "objects.npy").read_bytes())
    for damaged in damages:
        before = file.stat()
        file.write_bytes(damaged)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        np.testing.assert_array_equal(store.stored_features(known, images, tmp_path), rows)
        assert "damaged (its SHA-256 differs)" in capsys.readouterr().err and file.read_bytes() == whole
    for text in ("", "[" * 100_000, "[]", '{"rows": "200"}', told.replace('"rows": 200', '"rows": 199')):
        note.write_text(text)
        np.testing.assert_array_equal(store.stored_features(known, images, tmp_path), rows)


def test_verified_features_are_not_read_again(known, images, tmp_path, monkeypatch):
    store.stored_features(known, images, tmp_path)
    copied = shutil.copytree(tmp_path, tmp_path / "copy")  # on another disk, say
    rows = store.stored_features(known, images, copied)
    monkeypatch.setattr(feature_file.hashlib, "file_digest", None)
    for folder in (tmp_path, copied):
        np.testing.assert_array_equal(store.stored_features(known, images, folder), rows)


def test_a_folder_that_cannot_be_written_is_named(known, images, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="features_dir=.*taken: cannot be written"):
        store.stored_features(known, images, tmp_path / "taken")


def halting(known, monkeypatch, images):
    """An extraction that halts once so many images are through: (halted, go on) as events."""
    encode, halted, go_on, done = store.forward(known.backbone), threading.Event(), threading.Event(), []

    def forward(_):
        def slowly(x):
            features = encode(x)
            done.append(len(x))
            if sum(done) == images:
                halted.set()
                go_on.wait(60)
            return features

        return slowly

    monkeypatch.setattr(store, "forward", forward)
    return halted, go_on, done


@pytest.mark.parametrize("locks", [True, False])
def test_two_extractions_at_once_are_both_right(known, images, tmp_path, monkeypatch, capsys, locks):
    expected = extract(known.backbone, images, known.views, batch_size=20)
    if not locks:

        def refuse(*args, **kwargs):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(feature_file.filelock.FileLock, "acquire", refuse)
    halted, go_on, done = halting(known, monkeypatch, images=60)
    made = {}

    def make(name):
        made[name] = np.array(store.stored_features(known, images, tmp_path, batch_size=20))

    first, second = (threading.Thread(target=make, args=(name,)) for name in "ab")
    first.start()
    assert halted.wait(60)
    second.start()
    second.join(1.0 if locks else 60)
    assert second.is_alive() == locks
    go_on.set()
    for thread in (first, second):
        thread.join(60)
    for rows in made.values():
        np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    waiting = f"waiting for process {os.getpid()}, which makes the same features"
    assert len(made) == 2 and (waiting in capsys.readouterr().err) == locks
    assert sum(done) == (200 if locks else 400)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".npy"]


@pytest.mark.slow
def test_a_killed_holder_is_not_waited_for(known, images, tmp_path):
    store.stored_features(known, images, tmp_path)
    file = next(tmp_path.glob("*.npy"))
    rows = np.load(file)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    code = (
        "import pathlib, sys, time\n"
        "from simsiam_tf.features import feature_file\n"
        "import numpy as np\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "with feature_file.claim(file, 'x') as path:\n"
        "    writer = feature_file.FeatureWriter(file, path, (200, 64))\n"
        "    writer.add(np.ones((50, 64)))\n"  # which are wrong, and not noted as right
        "    writer.opened.flush()\n"
        "    print('here', flush=True)\n"
        "    time.sleep(100)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, file], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "here\n"
    made = []
    waiting = threading.Thread(target=lambda: made.append(store.stored_features(known, images, tmp_path)))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive() and not file.exists()
    holder.kill()
    waiting.join(60)
    np.testing.assert_array_equal(made[0], rows)


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(known, images, tmp_path):
    store.stored_features(known, images, tmp_path)
    file, victim = next(tmp_path.glob("*.npy")), tmp_path / "victim"
    file.unlink()
    victim.write_text("mine")
    file.with_suffix(".writing.npy").symlink_to(victim)
    with pytest.raises(UserError, match="cannot be written"):
        store.stored_features(known, images, tmp_path)
    assert victim.read_text() == "mine"


def test_a_folder_that_is_removed_meanwhile_is_named(known, images, tmp_path, monkeypatch):
    extract_, folder = store._extract, tmp_path / "f"

    def removing(*args):
        changed = extract_(*args)
        shutil.rmtree(folder)
        return changed

    monkeypatch.setattr(store, "_extract", removing)
    with pytest.raises(UserError, match="features_dir=.*f: cannot be written .No such file"):
        store.stored_features(known, images, folder)
