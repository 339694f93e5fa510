"""The picture of a query and its neighbours: drawn from a finished run, the query framed."""

import dataclasses

from helpers import small_backbones
from PIL import Image

from scripts import draw_neighbours
from simsiam_tf.data import AUGMENTATIONS


def test_draws_a_query_and_its_neighbours(tmp_path):
    augmentation = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)
    small_backbones.exported(tmp_path / "run", augmentation, channels=1)
    flags = ["--data=digits", f"--weights={tmp_path / 'run'}", "--neighbours=3"]
    assert draw_neighbours.main([*flags, f"--out={tmp_path / 'out.png'}"]) == 0
    with Image.open(tmp_path / "out.png") as picture:
        step = draw_neighbours.SIDE + draw_neighbours.GAP
        assert picture.width == 4 * step + 3 * draw_neighbours.GAP
        frame = [picture.getpixel((x, draw_neighbours.GAP - 4)) for x in range(picture.width)]
    framed = [x for x, colour in enumerate(frame) if colour == draw_neighbours.QUERY]
    assert framed and max(framed) < step + draw_neighbours.GAP  # only the query has a frame
