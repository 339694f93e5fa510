"""A run keeps its list of images: what is gone has a stand-in, what is new is not used."""

import numpy as np
import pytest
import tensorflow as tf
import test_places as places

from simsiam_tf.data import open_source
from simsiam_tf.data.sources.run_images import record_images
from simsiam_tf.runtime.errors import UserError

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
    assert "1 of 6 images left out, such as dogs/3.png" in capsys.readouterr().err


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
