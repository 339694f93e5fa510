"""A run keeps its list of images: what is gone has a stand-in, what is new is not used."""

import tarfile

import numpy as np
import pytest
import tensorflow as tf
from helpers import six_pictures as places

from simsiam_tf.data import open_source
from simsiam_tf.data.sources.run_images import record_images
from simsiam_tf.runtime.errors import UserError, file_failure

COUNT, picture, png, name = places.COUNT, places.picture, places.png, places.name
folder = places.folder


def image(source, i):
    """As in a pipeline: in a graph."""
    (pixels,) = tf.data.Dataset.from_tensors(tf.constant(i, tf.int64)).map(source.decode)
    return pixels.numpy()


def opened(folder, run, on_bad_image="skip"):
    return open_source(f"folder:{folder}", run=run, on_bad_image=on_bad_image)


def test_an_image_that_is_gone_has_a_stand_in(folder, tmp_path, capsys):
    source = opened(folder, tmp_path)
    record_images(tmp_path, source)
    (folder / name(3)).unlink()
    np.testing.assert_array_equal(image(source, 3), picture(4))
    np.testing.assert_array_equal(image(source, 3), picture(4))
    np.testing.assert_array_equal(image(source, 4), picture(4))
    error = capsys.readouterr().err
    assert error.count("dogs/3.png: No such file or directory; the next image stands in for it") == 1
    # The run goes on with all other images where they were.
    again = opened(folder, tmp_path)
    assert (again.size, again.names, again.contents()) == (COUNT, source.names, source.contents())
    assert again.labels.tolist() == places.LABELS and again.class_names == ("cats", "dogs")
    for i in range(COUNT):
        np.testing.assert_array_equal(image(again, i), picture(4 if i == 3 else i))
    assert "1 of 6 images replaced by the next in the list, such as dogs/3.png" in capsys.readouterr().err


def test_an_image_that_changed_has_a_stand_in(folder, tmp_path):
    source = opened(folder, tmp_path)
    record_images(tmp_path, source)
    (folder / name(5)).write_bytes(png(1))
    np.testing.assert_array_equal(image(source, 5), picture(0))
    again = opened(folder, tmp_path)
    np.testing.assert_array_equal(image(again, 5), picture(0))
    assert again.contents() == source.contents()


def test_new_images_are_not_used(folder, tmp_path, capsys):
    source = opened(folder, tmp_path)
    record_images(tmp_path, source)
    (folder / "ants").mkdir()
    (folder / "ants" / "0.png").write_bytes(png(5))
    again = opened(folder, tmp_path)
    assert again.names == source.names and again.contents() == source.contents()
    assert "1 new images are not used" in capsys.readouterr().err
    assert open_source(f"folder:{folder}").size == COUNT + 1


def test_without_skip_a_missing_image_ends_the_run(folder, tmp_path):
    source = opened(folder, tmp_path, "error")
    record_images(tmp_path, source)
    data = (folder / name(3)).read_bytes()
    (folder / name(3)).unlink()
    with pytest.raises(tf.errors.OpError, match="dogs/3.png"):
        image(source, 3)
    with pytest.raises(UserError, match="1 of 6 images cannot be decoded, such as dogs/3.png"):
        opened(folder, tmp_path, "error")
    (folder / name(3)).write_bytes(data)
    assert opened(folder, tmp_path, "error").contents() == source.contents()
    (folder / name(3)).write_bytes(png(0))
    with pytest.raises(UserError, match="dogs/3.png .changed since the run began"):
        opened(folder, tmp_path, "error")


def test_all_images_gone(folder, tmp_path):
    source = opened(folder, tmp_path)
    for i in range(COUNT):
        (folder / name(i)).unlink()
    with pytest.raises(tf.errors.OpError, match="not one of its images can be read"):
        image(source, 0)


@pytest.mark.parametrize("kind", ["folder", "list", "tar"])
def test_an_image_that_changes_meanwhile_is_named(folder, tmp_path, kind):
    """Also where nothing else would tell: another picture of the same length at the same place."""
    place = {"folder": folder, "list": tmp_path / "all.txt", "tar": tmp_path / "all.tar"}[kind]
    (tmp_path / "all.txt").write_text("".join(f"{folder / name(i)}\n" for i in range(COUNT)))
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(folder, "")
    source = open_source(f"{kind}:{place}", run=tmp_path)
    i = next(i for i, image_name in enumerate(source.names) if image_name.endswith(name(5)))
    old = png(5)
    new = old[:-20] + bytes([old[-20] ^ 1]) + old[-19:]
    changed = tmp_path / "all.tar" if kind == "tar" else folder / name(5)
    changed.write_bytes(changed.read_bytes().replace(old, new))
    with pytest.raises(tf.errors.OpError) as raised:
        image(source, i)
    reason = file_failure(raised.value)
    assert name(5) in reason and reason.endswith(": changed since the command began")
