"""The picture of images and their views."""

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from simsiam_tf.data import AUGMENTATIONS, Views, open_source, preview
from simsiam_tf.data.sources.overview import ORIENTATIONS, header_summary, image_notes


def test_odd_images_come_first(tmp_path):
    for i in range(9):
        keras.utils.save_img(tmp_path / f"{i}.png", np.full([32, 32, 3], 20 * i), scale=False)
    Image.new("RGBA", (32, 32)).save(tmp_path / "z.png")  # transparent, on white
    views = Views(AUGMENTATIONS["cifar"])
    picture, captions = preview.grid(open_source(f"folder:{tmp_path}"), views, seed=0)
    zoom = 112 // views.augmentation.size
    side, line = zoom * views.augmentation.size, preview.LINE
    step = line + side + 2 * preview.GAP
    assert picture.shape == (line + 8 * step, 3 * (side + 2 * preview.GAP), 3)
    middle = line + line + preview.GAP + side // 2
    assert picture[middle, side // 2].min() > 250
    shown = [picture[k * step + middle, side // 2, 0] for k in range(1, 8)]
    assert shown == sorted(shown)
    assert captions[0] == "z.png: transparent, laid on white" and captions[1:3] == ["0.png", "1.png"]
    for k in range(8):  # a caption is dark on the white line above its row
        top = line + k * step
        assert (
            picture[top : top + line].min() < 100
            and picture[top + line : top + line + preview.GAP].min() == 255
        )


def test_half_of_the_rows_are_ordinary_images(tmp_path):
    """Of the others, each kind is there: transparent ones and those that EXIF turns."""
    for i in range(6):
        Image.new("RGBA", (32, 32)).save(tmp_path / f"transparent{i}.png")
        turned = Image.new("RGB", (32, 32))
        turned.getexif()[274] = 6
        turned.save(tmp_path / f"turned{i}.jpg", exif=turned.getexif())
        Image.new("RGB", (32, 32)).save(tmp_path / f"plain{i}.jpg")
    source = open_source(f"folder:{tmp_path}")
    names = [source.names[i] for i in preview.shown_images(source, rows=8)]
    kinds = [name.partition(".")[0][:-1] for name in names]
    assert sorted(kinds[:4]) == 2 * ["transparent"] + 2 * ["turned"] and kinds[4:] == 4 * ["plain"]
    assert sorted(preview.shown_images(source, rows=18)) == list(range(18))


def test_notes_say_in_words_how_an_image_was_made_upright(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    actions = {
        "mirrored left to right": lambda x: x[:, ::-1], "mirrored top to bottom": lambda x: x[::-1],
        "rotated by 180°": lambda x: x[::-1, ::-1], "rotated by 90° clockwise": lambda x: np.rot90(x, -1),
        "rotated by 90° counterclockwise": np.rot90,
    }  # fmt: skip
    for number, words in ORIENTATIONS.items():
        image = Image.fromarray(pixels)
        image.getexif()[274] = number
        image.save(tmp_path / f"{number}.png", exif=image.getexif())
        moved = pixels
        for word in words.split(", then "):
            moved = actions[word](moved)
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), moved)
    source = open_source(f"folder:{tmp_path}")
    assert [image_notes(source, i) for i in range(7)] == [[words] for words in ORIENTATIONS.values()]
    assert "1 × rotated by 90° clockwise" in header_summary(source)["EXIF orientation"]


def test_a_long_caption_keeps_its_ends_within_the_line():
    def drawn(text, width):
        canvas = Image.new("L", (400, 20), 255)
        preview._write(ImageDraw.Draw(canvas), text, 0, 0, width)
        return np.asarray(canvas)

    long = drawn("folder/with/a/very/long/name/" * 5 + "photo.jpg", 200)
    assert long[:, :200].min() < 100 and long[:, 200 - preview.GAP + 1 :].min() == 255
    assert (long[:, :30] == drawn("folder", 400)[:, :30]).all()  # its first letters
    assert drawn("\u05e9\u05dc", 400).min() < 100  # letters that the font lacks raise nothing


def test_accents_are_left_out_where_the_font_has_none(monkeypatch):
    monkeypatch.setattr(preview, "_font", lambda: (ImageFont.load_default(size=11), False))

    def drawn(text):
        canvas = Image.new("L", (100, 20), 255)
        preview._write(ImageDraw.Draw(canvas), text, 0, 0, 100)
        return np.asarray(canvas)

    assert (drawn("F\u00eate") == drawn("Fete")).all() and (drawn("\u65e5") == drawn("?")).all()
