"""VOC as TFDS prepares it, from VOC's own XML, written here and without a network."""

import numpy as np
import pytest
from PIL import Image

tfds = pytest.importorskip("tensorflow_datasets")
from simsiam_tf.dense_tasks.voc_sets import open_voc
from simsiam_tf.runtime.errors import UserError

HEIGHT, WIDTH = 60, 100
BOX = (1, 11, 40, 60)  # xmin, ymin, xmax, ymax of VOC: pixels from 1, the last included
XML = """<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>
<difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""
IMAGES = {  # names of the images of each split; the gray level of each is its number
    "2007": {"train": ["000010"], "val": ["000020", "000030"], "test": ["000040"]},
    "2012": {"train": ["000050"], "val": ["000060"], "test": ["000070"]},
}


def write_voc(folder, year):
    root = folder / "VOCdevkit" / f"VOC{year}"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    for split, names in IMAGES[year].items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            pixels = np.full((HEIGHT, WIDTH, 3), int(name), np.uint8)
            pixels[BOX[1] - 1 : BOX[3], BOX[0] - 1 : BOX[2]] = 255
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            objects = OBJECT.format(*BOX, name="bicycle", difficult=0)
            objects += OBJECT.format(9, 9, 20, 20, name="cat", difficult=1)
            text = XML.format(width=WIDTH, height=HEIGHT, objects=objects if name != "000030" else "")
            (root / "Annotations" / f"{name}.xml").write_text(text)
    return str(folder)


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def data_dir(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    for year in IMAGES:
        files = write_voc(tmp_path_factory.mktemp("voc"), year)
        builder = tfds.builder(f"voc/{year}", data_dir=str(path), file_format=request.param)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                tfds.download.DownloadManager,
                "download_and_extract",
                lambda _, urls, files=files: dict.fromkeys(urls, files),
            )
            builder.download_and_prepare()
    return str(path)


def levels(opened):
    """The gray level of each image at a corner, which names it."""
    return sorted(int(opened.read(i).image[0, -1, 0].round(-1)) for i in range(opened.size))


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        ("voc/2007", "train", [10, 20, 30]), ("voc/2007", "test", [40]), ("voc/2012", "train", [50, 60]),
        ("voc/2012", "test", [40]), ("voc/2007+2012", "train", [10, 20, 30, 50, 60]),
        ("voc/2007+2012", "test", [40]),
    ],
)  # fmt: skip
def test_splits(data_dir, name, split, expected):
    opened = open_voc(name, split, "detection", data_dir)
    assert opened.size == len(expected) and levels(opened) == expected
    assert opened.name == f"tfds:{name}:{split}"
    assert len(opened.class_names) == 20 and opened.class_names[:2] == ("aeroplane", "bicycle")


def test_boxes_enclose_what_is_painted(data_dir):
    """The painted pixels of VOC's box, whose numbers begin with 1; difficult objects are ignored."""
    opened = open_voc("voc/2007", "test", "detection", data_dir)
    found = opened.read(0)
    rows, columns = np.nonzero(found.image[..., 0] > 200)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found.boxes, [edges, [8, 8, 20, 20]], atol=1e-4)
    assert found.labels.tolist() == [1, 7] and found.ignored.tolist() == [False, True]
    assert found.mask is None and found.boxes.dtype == np.float32 and found.boxes.min() >= 0


def test_an_image_without_objects(data_dir):
    opened = open_voc("voc/2007", "train", "detection", data_dir)
    counts = {int(r.image[0, -1, 0].round(-1)): len(r.boxes) for r in map(opened.read, range(3))}
    assert counts == {10: 2, 20: 2, 30: 0}
    (empty,) = (r for r in map(opened.read, range(3)) if not len(r.boxes))
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == empty.ignored.shape == (0,)


def test_fingerprints_differ_and_stay(data_dir):
    names = [("voc/2007", "train"), ("voc/2007", "test"), ("voc/2007+2012", "train"), ("voc/2007", "train")]
    first, *others, again = (open_voc(*name, "detection", data_dir).contents() for name in names)
    assert first == again and len({first, *others}) == 3


def test_other_sets_and_masks_are_refused():
    with pytest.raises(UserError, match="tfds:voc/2008:train: .* Did you mean voc/2007"):
        open_voc("voc/2008", "train", "detection")
    with pytest.raises(UserError, match="boxes alone. For masks pass masks:JPEGImages,SegmentationClass"):
        open_voc("voc/2007", "train", "segmentation")
