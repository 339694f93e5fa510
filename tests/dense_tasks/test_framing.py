"""Boxes and masks go through the same crops and flips as their image: shown by painting them."""

import numpy as np
import pytest

from simsiam_tf.dense_tasks.annotations import IGNORE, Annotated
from simsiam_tf.dense_tasks.framing import GRAY, Framing, Placement, in_image

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])


def painted(height, width, boxes):
    """An image with boxes of pure colours on black, which do not overlap."""
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    for k, (left, top, right, lower) in enumerate(boxes):
        image[top:lower, left:right], mask[top:lower, left:right] = COLOURS[k], k + 1
    labels = np.arange(len(boxes))
    return Annotated(image, np.array(boxes, np.float32), labels, np.zeros(len(boxes), bool), mask)


def bounds(region):
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("size", [(90, 120), (64, 64), (200, 50)])
def test_what_is_painted_is_where_its_box_is(size):
    height, width = size
    boxes = [(2, 3, width // 3, height // 3), (width // 2, height // 2, width - 2, height - 4),
             (width // 2, 5, width // 2 + 12, 25)]  # fmt: skip
    annotated, framing, rng = painted(height, width, boxes), Framing(64, (0.5, 2.0)), np.random.default_rng(0)
    checked = mirrored = 0
    for _ in range(60):
        placement = framing.random(height, width, rng.random(4))
        image = framing.image(annotated.image, placement).astype(int)
        mask = framing.mask(annotated.mask, placement)
        seen, labels = framing.boxes(annotated, placement)
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64) and len(seen) == len(labels)
        mirrored += placement.mirrored
        for box, k in zip(seen, labels, strict=True):
            is_its = (image * COLOURS[k]).sum(axis=-1) > 255 * 128  # at least half of the pixel
            is_its &= image.sum(axis=-1) < 2 * 255  # not the gray beside the image
            if min(box[2] - box[0], box[3] - box[1]) > 6:
                assert np.abs(bounds(is_its) - box).max() <= 1.0
                assert np.abs(bounds(mask == k + 1) - box).max() <= 1.0
                checked += 1
        beside = mask == IGNORE
        assert (image[beside] == GRAY).all()
    assert checked > 40 and 15 < mirrored < 45


def test_boxes_that_are_hardly_seen_or_ignored_are_left_out():
    annotated = painted(100, 100, [(0, 0, 40, 40), (60, 60, 100, 100)])
    framing = Framing(50)
    of_the_left = Placement((0.0, 0.0, 50.0, 50.0), (0, 0, 50, 50))
    seen, labels = framing.boxes(annotated, of_the_left)
    np.testing.assert_allclose(seen, [(0, 0, 40, 40)])
    assert labels.tolist() == [0]
    narrow = Placement((0.0, 70.0, 70.0, 100.0), (0, 0, 50, 21))  # a quarter less a bit of the second
    assert framing.boxes(annotated, narrow)[1].tolist() == []
    wider = Placement((0.0, 70.0, 75.0, 100.0), (0, 0, 50, 20))
    assert framing.boxes(annotated, wider)[1].tolist() == [1]
    ignored = Annotated(annotated.image, annotated.boxes, annotated.labels, np.array([True, False]))
    assert framing.boxes(ignored, of_the_left)[1].tolist() == []


@pytest.mark.parametrize("size", [(90, 120), (64, 64), (333, 50)])
def test_whole_images_and_the_way_back(size):
    height, width = size
    boxes = np.array([(0, 0, width, height), (3, 5, 20, 31)], np.float32)
    annotated = Annotated(np.zeros((*size, 3), np.uint8), boxes, np.arange(2), np.zeros(2, bool))
    framing = Framing(64)
    placement = framing.whole(*size)
    seen, _ = framing.boxes(annotated, placement)
    assert seen.max() == 64 and seen.min() == 0
    np.testing.assert_allclose(in_image(seen, placement, *size), boxes, atol=1e-4)


def test_no_scale_and_no_flip_is_the_image_itself():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    framing = Framing(64, (1.0, 1.0), flip_p=0.0)
    np.testing.assert_array_equal(framing.image(image, framing.random(64, 64, rng.random(4))), image)
    gray = Framing(64, (1.0, 1.0), flip_p=0.0, channels=1)
    assert gray.image(image, gray.whole(64, 64)).shape == (64, 64, 1)
