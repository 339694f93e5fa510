"""Six pictures, and the check that a source gives them."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf

COUNT = 6


def picture(i) -> np.ndarray:
    y, x = np.mgrid[: 9 + i, : 12 + i]
    return np.stack([8 * y + 10 * i, 9 * x, 200 - 5 * x], axis=-1).astype(np.uint8)


def png(i) -> bytes:
    return tf.io.encode_png(picture(i)).numpy()


def shuffled(source) -> list[np.ndarray]:
    """All images, read in another order than they lie in."""
    order = [3, 0, 5, 1, 4, 2]
    images = {i: source.decode(tf.constant(i, tf.int64)).numpy() for i in order}
    return [images[i] for i in range(COUNT)]


def check_images(source, labels=None):
    assert source.size == COUNT and source.channels == 3
    for i, image in enumerate(shuffled(source)):
        np.testing.assert_array_equal(image, picture(i))
    if labels is not None:
        assert np.asarray(source.labels).tolist() == labels


LABELS = [0, 0, 0, 1, 1, 1]


def name(i) -> str:
    return f"{'cats' if i < 3 else 'dogs'}/{i}.png"


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes."""
    for i in range(COUNT):
        path = tmp_path / "folder" / name(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    return tmp_path / "folder"


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
