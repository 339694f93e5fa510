"""The digest of a source's contents: of its images, and of nothing else."""

import os
import shutil

import numpy as np
from PIL import Image

from simsiam_tf.data import open_source, subset
from simsiam_tf.data.sources import from_arrays

RNG = np.random.default_rng(0)


def save(path, divisor) -> None:
    y, x = np.mgrid[:11, :17]
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(
        (np.stack([8 * y + 60, 9 * x + 40, 200 - 5 * x], axis=-1) // divisor).astype(np.uint8)
    ).save(path)


def replace(path, divisor) -> None:
    """Puts another image of the same size and mtime in the place of a file."""
    before = path.stat()
    save(path, divisor)
    data = path.read_bytes()
    assert len(data) <= before.st_size
    path.write_bytes(data + bytes(before.st_size - len(data)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_contents_are_those_of_the_files(tmp_path, capsys):
    root, report = tmp_path / "a", tmp_path / "report.json"
    for i in range(4):
        save(root / f"{i}.bmp", i + 1)
    open_again = lambda: open_source(f"folder:{root}", report=report)
    source = open_again()
    shutil.copytree(root, tmp_path / "copy")  # at other times
    assert open_source(tmp_path / "copy").contents() == source.contents()
    os.utime(root / "0.bmp")
    assert open_again().contents() == source.contents() and not capsys.readouterr().err
    replace(root / "1.bmp", 7)
    other = open_again()
    assert other.contents() != source.contents() and other.fingerprint == source.fingerprint
    said = f"of 4 images, 1 changed since {report} was written, such as 1.bmp"
    assert said in capsys.readouterr().err
    (root / "2.bmp").rename(root / "x")
    (root / "3.bmp").rename(root / "2.bmp")
    (root / "x").rename(root / "3.bmp")
    assert open_again().contents() != other.contents()
    assert "2 changed" in capsys.readouterr().err
    (root / "3.bmp").rename(root / "4.bmp")
    open_again()
    assert "of 4 images, 1 new, 1 gone since" in capsys.readouterr().err
    part = subset(open_again(), [0, 1, 3])
    (root / "2.bmp").unlink()
    assert part.contents() == open_again().contents()


def test_every_pixel_of_arrays_counts():
    images = RNG.integers(0, 256, [1000, 4, 4, 1], np.uint8)
    one = from_arrays("mine", images.copy())
    images[5, 1, 1] += 1
    two = from_arrays("mine", images)
    assert one.contents() != two.contents() and one.contents() == from_arrays("other", one.images).contents()
    assert subset(one, [3, 5]).contents() != subset(two, [3, 5]).contents()
