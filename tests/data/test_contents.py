"""A source's `contents`: a digest of its images alone, by which a run refuses other images."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import open_source, subset
from simsiam_tf.data.sources.base import from_arrays
from simsiam_tf.loop.workdir import Workdir
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run

RNG = np.random.default_rng(0)


def save(path, divisor) -> None:
    y, x = np.mgrid[:11, :17]
    path.parent.mkdir(exist_ok=True)
    image = np.stack([8 * y + 60, 9 * x + 40, 200 - 5 * x], axis=-1) // divisor
    Image.fromarray(image.astype(np.uint8)).save(path)


def replace(path, divisor) -> None:
    """Puts another image of the same size and mtime in the place of a file."""
    before = path.stat()
    save(path, divisor)
    data = path.read_bytes()
    assert len(data) <= before.st_size
    path.write_bytes(data + bytes(before.st_size - len(data)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_contents_of_a_folder_change_with_its_files_alone(tmp_path, capsys):
    root = tmp_path / "a"
    for i in range(4):
        save(root / f"{i}.bmp", i + 1)
    open_again = lambda: open_source(f"folder:{root}")
    source = open_again()
    shutil.copytree(root, tmp_path / "copy")  # at other times
    assert open_source(tmp_path / "copy").contents() == source.contents()
    os.utime(root / "0.bmp")
    assert open_again().contents() == source.contents() and not capsys.readouterr().err
    replace(root / "1.bmp", 7)
    other = open_again()
    assert other.contents() != source.contents() and other.fingerprint == source.fingerprint
    said = "of 4 images, 1 changed since they were last checked, such as 1.bmp"
    assert said in capsys.readouterr().err
    (root / "2.bmp").rename(root / "x")
    (root / "3.bmp").rename(root / "2.bmp")
    (root / "x").rename(root / "3.bmp")
    assert open_again().contents() != other.contents()
    assert "2 changed" in capsys.readouterr().err
    (root / "3.bmp").rename(root / "4.bmp")
    open_again()
    assert "of 4 images, 1 new, 1 gone since they were last checked" in capsys.readouterr().err
    part = subset(open_again(), [0, 1, 3])
    (root / "2.bmp").unlink()
    assert part.contents() == open_again().contents()


def test_contents_of_arrays_change_with_every_pixel():
    images = RNG.integers(0, 256, [1000, 4, 4, 1], np.uint8)
    one = from_arrays("mine", images.copy())
    images[5, 1, 1] += 1
    two = from_arrays("mine", images)
    assert one.contents() != two.contents() and one.contents() == from_arrays("other", one.images).contents()
    assert subset(one, [3, 5]).contents() != subset(two, [3, 5]).contents()


def test_a_run_does_not_continue_with_other_images(tmp_path, capsys):
    """Images are replaced under their names, with their sizes and times. Other times alone change nothing."""
    root, workdir = tmp_path / "images", tmp_path / "run"
    root.mkdir()

    def pictures(seed):
        rng = np.random.default_rng(seed)
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(root / f"{i}.bmp")
            os.utime(root / f"{i}.bmp", (seed // 10, 5))

    argv = [
        f"--data=folder:{root}", f"--workdir={workdir}", "--batch_size=8", "--image_size=12",
        "--backbone=resnet10", "--width=0.125", "--d=8",
    ]  # fmt: skip
    config = cli.parse(PretrainConfig, argv)

    def begin():
        metadata = build_run.build_pretraining(config, workdir / "unreadable.json").metadata
        place = Workdir(workdir)
        try:
            place.bind(config, metadata)
        finally:
            place.release()

    pictures(0)
    begin()
    os.utime(root / "3.bmp", (99, 99))
    begin()
    assert capsys.readouterr().err == ""
    pictures(1)
    with pytest.raises(
        UserError, match="others than when the run began .contents of the images was [0-9a-f]{16}, is"
    ):
        begin()
    assert "of 8 images, 8 changed since" in capsys.readouterr().err
    pictures(0)
    begin()
