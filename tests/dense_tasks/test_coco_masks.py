"""Polygons and run-length codes of COCO as masks."""

import numpy as np
import pytest

from simsiam_tf.dense_tasks.coco_masks import check_segmentation, decode_segmentation, polygon_mask

HEIGHT, WIDTH = 30, 40
RING = np.zeros((HEIGHT, WIDTH), bool)  # a rectangle with a hole
RING[3:20, 5:33], RING[8:15, 10:20] = True, False
RING_COUNTS = [  # by hand: five columns above the ring, 3 pixels above it, then its columns one by one
    153, *[17, 13] * 5, *[5, 7, 5, 13] * 10, *[17, 13] * 12, 17, 30 * 7 + 10,
]  # fmt: skip
RING_TEXT = (  # what pycocotools 2.0.11 makes of it
    "i4a0=00000000DJ060J060J060J060J060J060J060J060J060J06<000000000000000000000000_6"
)


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    drawing = """
        ........
        ..#.....
        .###....
        #####...
        .####...
        ........"""
    expected = np.array([[c == "#" for c in line.strip()] for line in drawing.split()])
    points = np.array([(2.5, 1), (5.4, 3.9), (4.9, 5.4), (1.1, 4.6), (0, 3.5)])
    np.testing.assert_array_equal(polygon_mask(points, 6, 8), expected)


def test_polygons_equal_matplotlib():
    path = pytest.importorskip("matplotlib.path")
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1).reshape(-1, 2) + 0.5
    for n in range(3, 30):  # stars around the middle, some of which reach over the edges
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, n)), rng.uniform(2, 25, n)
        points = np.stack([20 + radii * np.cos(angles), 15 + radii * np.sin(angles)], axis=-1)
        expected = path.Path(points).contains_points(centres).reshape(HEIGHT, WIDTH)
        np.testing.assert_array_equal(polygon_mask(points, HEIGHT, WIDTH), expected)


@pytest.mark.parametrize("counts", [RING_COUNTS, RING_TEXT], ids=["plain", "compressed"])
def test_run_lengths_equal_the_mask(counts):
    segmentation = check_segmentation({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH)
    np.testing.assert_array_equal(decode_segmentation(segmentation, HEIGHT, WIDTH), RING)


def test_compressed_run_lengths_equal_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = height, width = rng.integers(1, 150, 2).tolist()
        mask = rng.random(size) < rng.choice([0, 0.02, 0.5, 0.98, 1])
        code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        found = check_segmentation({"size": size, "counts": code["counts"].decode()}, height, width)
        np.testing.assert_array_equal(decode_segmentation(found, height, width), mask)


@pytest.mark.parametrize(
    ("segmentation", "line"),
    [
        ([1, 2, 3, 4, 5, 6], "segmentation is no list of polygons"),
        ([[1, 2, 3, 4, 5]], "polygon is no list of x, y"),
        ([[1, 2, 3, 4, 5, float("inf")]], "not finite"),
        ({"size": [WIDTH, HEIGHT], "counts": RING_COUNTS}, r"size is \[40, 30\], not its image's \[30, 40\]"),
        ({"size": [HEIGHT, WIDTH], "counts": RING_COUNTS[:-1]}, "counts do not sum to 1200"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, 1201]}, "counts do not sum to 1200"),
        ({"size": [HEIGHT, WIDTH]}, "no list of counts"),
        ({"size": [HEIGHT, WIDTH], "counts": RING_TEXT[:-2]}, "counts do not sum to 1200"),
        ({"size": [HEIGHT, WIDTH], "counts": RING_TEXT[:-1]}, "compressed counts are cut off"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "compressed counts hold 'é'"),
    ],
)  # fmt: skip
def test_a_damaged_segmentation_is_refused(segmentation, line):
    with pytest.raises(ValueError, match=line):
        check_segmentation(segmentation, HEIGHT, WIDTH)
