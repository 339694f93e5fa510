"""The picture of images and their views."""

import keras
import numpy as np
from PIL import Image

from simsiam_tf.data import AUGMENTATIONS, Views, open_source, preview


def test_odd_images_come_first(tmp_path):
    for i in range(9):
        keras.utils.save_img(tmp_path / f"{i}.png", np.full([32, 32, 3], 20 * i), scale=False)
    Image.new("RGBA", (32, 32)).save(tmp_path / "z.png")  # transparent, on white
    picture = preview.grid(open_source(f"folder:{tmp_path}"), Views(AUGMENTATIONS["cifar"]), seed=0)
    row, middle = len(picture) // 8, len(picture) // 16
    assert picture[middle, middle].min() > 250
    shown = [picture[k * row + middle, middle, 0] for k in range(1, 8)]
    assert shown == sorted(shown)
