"""The same small images as a folder, and as archives and tables in memory."""

import io
import tarfile
import tempfile
import zipfile

import numpy as np
import tensorflow as tf

COUNT = 24
SHARDS = 2
KINDS = ("tar", "zip", "parquet", "tfrecord")


def picture(i) -> np.ndarray:
    y, x = np.mgrid[: 9 + i, : 12 + i]
    return np.stack([8 * y + 10 * i, 9 * x, 200 - 5 * x], axis=-1).astype(np.uint8)


def png(i) -> bytes:
    return tf.io.encode_png(picture(i)).numpy()


def name(i) -> str:
    return f"{'cats' if i < COUNT // 2 else 'dogs'}/{i:02d}.png"


def shard(kind, rows) -> bytes:
    """One of the files of a place, with the images `rows`."""
    file = io.BytesIO()
    {"tar": _tar, "zip": _zip, "parquet": _parquet, "tfrecord": _tfrecord}[kind](file, rows)
    return file.getvalue()


def shards(kinds=KINDS) -> dict[str, bytes]:
    """Name → bytes: 0.tar, 1.tar, …"""
    rows = np.array_split(np.arange(COUNT), SHARDS)
    return {f"{s}.{kind}": shard(kind, rows[s].tolist()) for kind in kinds for s in range(SHARDS)}


def _tar(file, rows):
    with tarfile.open(fileobj=file, mode="w") as archive:
        for i in rows:
            info = tarfile.TarInfo(name(i))
            info.size = len(png(i))
            archive.addfile(info, io.BytesIO(png(i)))


def _zip(file, rows):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in rows:
            archive.writestr(name(i), png(i))


def _parquet(file, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [png(i) for i in rows]}), file)


def _tfrecord(file, rows):
    with tempfile.NamedTemporaryFile() as written:
        with tf.io.TFRecordWriter(written.name) as writer:
            for i in rows:
                example = tf.train.Example()
                example.features.feature["image"].bytes_list.value.append(png(i))
                writer.write(example.SerializeToString())
        file.write(written.read())


def write_folder(path) -> str:
    """Writes the images into a folder; returns its specification."""
    for i in range(COUNT):
        (path / name(i)).parent.mkdir(parents=True, exist_ok=True)
        (path / name(i)).write_bytes(png(i))
    return f"folder:{path}"


def images_of(source) -> list[np.ndarray]:
    """The pixels of all images, of which each is larger than the one before."""
    images = [source.decode(tf.constant(i, tf.int64)).numpy() for i in range(source.size)]
    return sorted(images, key=lambda image: image.size)


def check_same_images(source, expected):
    images = images_of(source)
    assert [image.shape for image in images] == [image.shape for image in expected]
    for ours, theirs in zip(images, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
