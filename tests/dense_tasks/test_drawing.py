"""Pixels of drawn boxes, masks and names; colours as colour-blind people see them."""

import itertools

import numpy as np
import pytest

from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.dense_tasks.drawing import COLOURS, NO_TRUTH, colour, draw, side_by_side

NO_BOXES = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
LABEL = 16  # pixels of a name's height


def noise(height, width):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def one_box(box, label=0):
    return np.array([box], np.float32), np.array([label])


def test_a_box_has_its_colour_on_its_outermost_pixels_and_the_image_inside():
    image = noise(300, 400)
    out = draw(image, *one_box([10, 20, 60, 80], label=2))
    assert (out[50, 10:13] == colour(2)).all() and (out[50, 57:60] == colour(2)).all()
    assert (out[20:23, 40] == colour(2)).all() and (out[77:80, 40] == colour(2)).all()
    assert (out[25:75, 15:55] == image[25:75, 15:55]).all()
    outside = np.ones((300, 400), bool)
    outside[20 - LABEL : 80, 10:60] = False
    assert (out[outside] == image[outside]).all()


@pytest.mark.parametrize(
    ("height", "width", "zoom"), [(28, 28, 10), (64, 80, 4), (200, 255, 2), (40, 256, 1)]
)
def test_small_pictures_are_enlarged_by_a_whole_factor_with_their_boxes(height, width, zoom):
    image = noise(height, width)
    assert (draw(image, *NO_BOXES) == np.kron(image, np.ones((zoom, zoom, 1), np.uint8))).all()
    out = draw(image, *one_box([5, 10, 25, 20]))
    row = 15 * zoom
    assert (out[row, 5 * zoom : 5 * zoom + 3] == colour(0)).all()
    assert (out[row, 25 * zoom - 3 : 25 * zoom] == colour(0)).all()
    assert (out[row, : 5 * zoom] == image[15, :5].repeat(zoom, 0)).all()
    assert (out[row, 25 * zoom :] == image[15, 25:].repeat(zoom, 0)).all()


def test_boxes_are_cut_at_the_edges_and_those_outside_left_out():
    image = noise(300, 400)
    out = draw(image, *one_box([-50, 40, 30, 900]))
    assert (out[100, :3] == colour(0)).all() and (out[-3:, 20] == colour(0)).all()
    assert (draw(image, *one_box([-50, 40, -10, 90])) == image).all()
    assert (draw(image, *one_box([90, 40, 10, 90])) == image).all()


def test_the_highest_score_lies_above():
    image, boxes = noise(300, 300), np.array([[50, 50, 100, 100]] * 3, np.float32)
    for scores in itertools.permutations((0.2, 0.5, 0.9)):
        out = draw(image, boxes, np.arange(3), np.array(scores))
        assert (out[70, 50] == colour(int(np.argmax(scores)))).all()


def test_a_mask_is_half_transparent_and_the_background_stays():
    image, mask = noise(300, 300), np.zeros((300, 300), np.uint8)
    mask[10:20], mask[30:40] = 3, IGNORE
    before = image.copy()
    out = draw(image, *one_box([200, 200, 280, 280]), mask=mask).astype(int)  # no names of masks beside boxes
    mixed = (before.astype(int) + np.array(colour(2))) // 2
    gray = (before.astype(int) + NO_TRUTH) // 2
    assert (out[10:20] == mixed[10:20]).all() and (out[30:40] == gray[30:40]).all()
    assert (out[:10] == image[:10]).all() and (out[40:150] == image[40:150]).all()
    assert (image == before).all()


def test_names_of_a_mask_are_written_on_their_classes():
    image, mask = noise(300, 300), np.zeros((300, 300), np.uint8)
    mask[20:120, 10:110], mask[150:160] = 2, IGNORE
    out = draw(image, *NO_BOXES, mask=mask, class_names=("background", "cat", "dog"))
    ys, xs = np.nonzero((out == colour(1)).all(-1))
    assert len(ys) > 100 and 20 <= ys.min() <= ys.max() < 120 and 10 <= xs.min() <= xs.max() < 110
    assert (out[150:160] == (image[150:160].astype(int) + NO_TRUTH) // 2).all()
    nameless = draw(image, *NO_BOXES, mask=mask)
    assert (nameless == draw(image, *NO_BOXES, mask=mask, class_names=("", "", "2"))).all()
    assert (nameless != out).any()


def test_boxes_have_names_and_scores_in_per_cent():
    image, box = noise(300, 300), one_box([50, 50, 150, 100])
    scored = draw(image, *box, np.array([0.874]), class_names=("cat",))
    assert (scored == draw(image, *box, class_names=("cat 87 %",))).all()
    assert (scored != draw(image, *box, class_names=("cat 88 %",))).any()
    for name, written in (("Ångström", "Angstrom"), ("猫", "0"), ("", "0"), ("a\n b\x1b", "a b\\x1b")):
        assert (draw(image, *box, class_names=(name,)) == draw(image, *box, class_names=(written,))).all()
    assert (draw(image, *box) == draw(image, *box, class_names=("0",))).all()


def test_names_are_whole_in_every_corner():
    image = np.full((300, 400, 3), 255, np.uint8)
    sizes = set()
    for left, top in [(200, 150), (0, 0), (390, 0), (0, 290), (390, 290)]:
        out = draw(image, *one_box([left, top, left + 10, top + 10]), class_names=("pullover",))
        ys, xs = np.nonzero((out == colour(0)).all(-1))
        sizes.add(int(np.ptp(xs)) + 1)
        assert np.ptp(ys) + 1 >= LABEL
    assert len(sizes) == 1 and sizes.pop() > 40


def relative_luminance(rgb):
    """Of sRGB in [0, 255], by WCAG 2."""
    linear = np.asarray(rgb) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_names_stand_out_from_their_colour():
    """The contrast that WCAG 2 asks of text, 4.5, on each colour."""
    for label in range(len(COLOURS)):
        out = draw(noise(300, 300), *one_box([50, 50, 200, 200], label), class_names=["MMMMMM"] * 18)
        patch = relative_luminance(out[50 - LABEL : 50, 50:100].reshape(-1, 3))
        fill = relative_luminance(colour(label))
        contrasts = (np.maximum(patch, fill) + 0.05) / (np.minimum(patch, fill) + 0.05)
        assert contrasts.max() > 4.5, label


SEEN = {  # linear RGB as people without one kind of cone see it (Machado et al. 2009, severity 1)
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(rgb, seen):
    """CIE L*a*b* of sRGB [n, 3] in [0, 255]."""
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(seen), 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
              [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
    t = linear @ np.transpose(to_xyz) / (0.95047, 1, 1.08883)
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@pytest.mark.parametrize("cones", SEEN)
def test_colours_differ_for_colour_blind_people(cones):
    """A CIE76 difference of 2.3 is just noticeable."""
    points = lab(COLOURS.astype(float), SEEN[cones])
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1000 * np.eye(len(points))
    assert distance[:6, :6].min() > 12
    assert distance.min() > 7


def test_rows_of_pictures_stand_on_white():
    a, b, c, d = (np.full((h, w, 3), v, np.uint8) for h, w, v in [(5, 8, 1), (7, 3, 2), (2, 4, 3), (2, 6, 4)])
    out = side_by_side([(a, b), (c, d)], gap=2)
    assert out.shape == (2 + 7 + 2 + 2 + 2, 2 + 8 + 2 + 6 + 2, 3)
    assert (out[2:7, 2:10] == 1).all() and (out[2:9, 12:15] == 2).all()
    assert (out[11:13, 2:6] == 3).all() and (out[11:13, 12:18] == 4).all()
    assert (out == 255).all(-1).sum() == out[..., 0].size - 5 * 8 - 7 * 3 - 2 * 4 - 2 * 6
    with pytest.raises(ValueError, match="at least one row"):
        side_by_side([])


def test_what_does_not_fit_together_is_refused():
    image = noise(30, 40)
    with pytest.raises(ValueError, match=r"Received: boxes \(1, 4\), labels \(2,\)"):
        draw(image, np.zeros((1, 4)), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"scores \(3,\)"):
        draw(image, np.zeros((2, 4)), np.zeros(2, int), np.zeros(3))
    with pytest.raises(ValueError, match=r"image's size\. Received: \(40, 30\)"):
        draw(image, *NO_BOXES, mask=np.zeros((40, 30), np.uint8))


def test_large_pictures_are_made_smaller_with_their_boxes():
    image = np.full((1024, 2048, 3), 200, np.uint8)
    out = draw(image, *one_box([400, 400, 800, 600]))
    assert out.shape == (256, 512, 3) and (draw(image, *NO_BOXES) == 200).all()
    assert (out[130, 100:103] == colour(0)).all() and (out[130, 197:200] == colour(0)).all()
    assert (out[130, 104:196] == 200).all() and (out[147:150, 150] == colour(0)).all()
    mask = np.zeros((1024, 2048), np.uint8)
    mask[:, 1024:] = 1
    half = draw(image, *NO_BOXES, mask=mask)
    assert (half[:, :256] == 200).all() and (half[200:, 256:300] == (200 + np.array(colour(0))) // 2).all()
