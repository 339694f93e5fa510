"""Runs on every place of images, killed twice, end as the run that nobody interrupted."""

import contextlib
import io
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from harness import DONE, Run
from helpers.http_files import serving

COUNT, STEPS = 64, 16


def image(i) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 255, [12 + i % 5, 14, 3]).astype(np.uint8)
    return tf.io.encode_png(pixels).numpy()


def folder(path):
    for i in range(COUNT):
        (path / "set").mkdir(exist_ok=True)
        (path / "set" / f"{i:02d}.png").write_bytes(image(i))
    return f"folder:{path}/set"


def listed(path):
    folder(path)
    (path / "all.txt").write_text("".join(f"set/{i:02d}.png\n" for i in reversed(range(COUNT))))
    return f"list:{path}/all.txt"


def tar(path):
    for shard in range(2):
        with tarfile.open(path / f"{shard}.tar", "w") as archive:
            for i in range(32 * shard, 32 * shard + 32):
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(image(i))
                archive.addfile(info, io.BytesIO(image(i)))
    return f"tar:{path}/{{0..1}}.tar"


def zipped(path):
    with zipfile.ZipFile(path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(COUNT):
            archive.writestr(f"{i:02d}.png", image(i))
    return f"zip:{path}/all.zip"


def parquet(path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [image(i) for i in range(COUNT)]}), path / "all.parquet")
    return f"parquet:{path}/all.parquet"


def tfrecord(path):
    with tf.io.TFRecordWriter(str(path / "all.tfrecord")) as writer:
        for i in range(COUNT):
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(image(i))
            writer.write(example.SerializeToString())
    return f"tfrecord:{path}/all.tfrecord"


def joined(path):
    return f"{folder(path)},{tar(path)}"


def hugging_face(path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": image(i), "path": None} for i in range(COUNT)]}
    images = datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image()}))
    (path / "set").mkdir()
    images.to_parquet(path / "set" / "train-00000-of-00001.parquet")
    return f"hf:{path}/set"


def url(path):
    """A folder of a server that fails every tenth request."""
    folder(path)
    server = contexts.enter_context(
        serving({f"set/{f.name}": f.read_bytes() for f in (path / "set").iterdir()})
    )
    server.fail = lambda n, request: 503 if n % 10 == 0 else None
    return f"folder:{server.url}/set"


contexts = contextlib.ExitStack()
PLACES = {f.__name__: f for f in (folder, listed, tar, zipped, parquet, tfrecord, joined, hugging_face, url)}


@pytest.fixture(autouse=True)
def servers_end():
    with contexts:
        yield


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_runs_end_as_the_uninterrupted_one(place, tmp_path):
    more = [
        f"--data={PLACES[place](tmp_path)}", "--augmentation=cifar", "--image_size=8", "--batch_size=16",
        "--epochs=4" if place != "joined" else "--epochs=2",
    ]  # fmt: skip
    whole, killed = Run(tmp_path / "whole", *more), Run(tmp_path / "killed", *more)
    assert whole.go().status == DONE
    for step in (3, 9):
        process = killed.start()
        assert killed.reach(process, step)
        process.kill()
        killed.finish(process)
    assert killed.go().status == DONE
    assert killed.newest_step() == STEPS and killed.left() == whole.left()
