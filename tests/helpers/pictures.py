"""A picture in many kinds of files."""

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
RAMP = np.stack(
    [
        np.add.outer(np.arange(HEIGHT) * 9, np.arange(WIDTH)),
        np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) * 7),
        np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 4),
    ],
    axis=-1,
).astype(np.uint8)
ALPHA = np.linspace(0, 255, HEIGHT * WIDTH).round().astype(np.uint8).reshape(HEIGHT, WIDTH)
PICTURE = Image.fromarray(RAMP)
DEEP = (np.linspace(0, 4095, HEIGHT * WIDTH).round()).astype(np.uint16).reshape(HEIGHT, WIDTH)


def encoded(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()
