"""Draws a test image and the training images nearest to it, as a PNG.

    bash scripts/quickstart.sh
    python scripts/draw_neighbours.py --weights=runs/quickstart --out=docs/img/neighbours.png

The nearest images are those of the largest cosine between features of the backbone. Under each image stands
its class, which pre-training did not use, and under each neighbour its cosine.
"""

from __future__ import annotations

import argparse
import sys

import simsiam_tf as ss  # before TensorFlow, which it sets up

SIDE, GAP, TEXT = 84, 10, 34  # pixels: an image, the space around it, the two lines under it
PAPER, INK, QUERY = (255, 255, 255), (40, 40, 40), (200, 60, 20)  # RGB


def main(argv: list[str] | None = None) -> int:
    """Draws the picture that the options describe; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", default="runs/quickstart", help="work folder of a pre-training")
    parser.add_argument("--data", default="fashion_mnist", help="a set with class names and a test split")
    parser.add_argument("--query", type=int, default=0, help="row of the test image")
    parser.add_argument("--neighbours", type=int, default=8, help="training images to show")
    parser.add_argument("--out", default="neighbours.png", help="the PNG to write")
    args = parser.parse_args(argv)
    backbone = ss.open_pretrained(args.weights)
    train, test = (ss.data.open_source(args.data, split) for split in ("train", "test"))
    vector = ss.features.embed(backbone, test).features[args.query]
    nearest = ss.features.embed(backbone, train).neighbours(vector, args.neighbours)
    cells = [(test, args.query, "query")]
    cells += [(train, int(row), f"{cosine:.3f}") for row, cosine in nearest]
    draw(
        [[(source.decode(row).numpy(), class_name(source, row), line) for source, row, line in cells]],
        args.out,
    )
    return 0


def class_name(source, row: int) -> str:  # noqa: ANN001
    """The class name of the image with the id `row`."""
    return source.class_names[int(source.labels[row])]


def draw(rows: list[list], path: str) -> None:
    """Writes rows of images, the first one of each framed, each with its two lines of text.

    rows: lists, equally long, of (image uint8 [H, W, C], first line, second line).
    """
    from PIL import Image, ImageDraw, ImageFont

    step, height = SIDE + GAP, SIDE + TEXT + 2 * GAP
    canvas = Image.new("RGB", (len(rows[0]) * step + 3 * GAP, len(rows) * height), PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for row, cells in enumerate(rows):
        top = row * height + GAP
        for i, (image, *lines) in enumerate(cells):
            x = GAP + i * step + (2 * GAP if i else 0)  # a wider gap behind the query
            picture = Image.fromarray(image.repeat(3, -1) if image.shape[-1] == 1 else image)
            canvas.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, top))
            if not i:
                pen.rectangle((x - 4, top - 4, x + SIDE + 3, top + SIDE + 3), outline=QUERY, width=3)
            for line, text in enumerate(lines):
                place = (x + SIDE / 2, top + SIDE + 12 + 15 * line)
                pen.text(place, text, fill=INK if i else QUERY, font=font, anchor="mm")
    canvas.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
