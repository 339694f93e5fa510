"""What the scan of pictures knows of their files decides which copy is kept."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.curation import duplicates
from simsiam_tf.curation.picture_scan import scan_pictures
from simsiam_tf.data import open_source


@pytest.fixture
def photos(tmp_path):
    """A photograph as PNG, in 256 colours, as JPEG of two qualities, and as a copy of the PNG."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    small = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8))
    photo = small.resize((96, 96), Image.Resampling.BICUBIC)
    photo.save(folder / "b.png")
    photo.quantize(256).save(folder / "a.gif")
    for quality in (60, 95):
        photo.save(folder / f"q{quality}.jpg", quality=quality)
    shutil.copy(folder / "b.png", folder / "a copy of b.png")
    return folder


def test_the_scan_has_the_format_and_the_bytes_of_each_file_also_in_an_archive(photos, tmp_path):
    paths = sorted(photos.iterdir())
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    for data in (f"folder:{photos}", f"zip:{tmp_path / 'photos.zip'}"):
        scan = scan_pictures(open_source(data), tmp_path)
        assert scan.formats.tolist() == ["PNG", "GIF", "PNG", "JPEG", "JPEG"]
        assert scan.file_sizes.tolist() == [path.stat().st_size for path in paths]
    assert scan_pictures(open_source("digits"), tmp_path).formats is None


def test_of_equal_sizes_the_file_that_lost_least_is_kept(photos, tmp_path):
    names = [path.name for path in sorted(photos.iterdir())]
    for kept in ("b.png", "q95.jpg", "q60.jpg"):
        source = open_source(f"folder:{photos}")
        scan = scan_pictures(source, tmp_path)
        found = duplicates(
            np.ones((source.size, 3)), cosine=0.9, area=scan.statistics.area, names=source.names,
            sharpness=scan.statistics.sharpness, formats=scan.formats, file_sizes=scan.file_sizes,
        )  # fmt: skip
        assert [source.names[row] for row in found.kept] == [kept]
        (photos / kept).unlink()
        (photos / "a copy of b.png").unlink(missing_ok=True)
    assert names[0] == "a copy of b.png"  # the first by name
