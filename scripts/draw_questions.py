"""Draws the pictures of README's table: a strip for each answer of `curate`, and a query with its neighbours.

    python -m simsiam_tf.curate --weights=runs/emoji --data=list:sets/emoji/set.csv --subset=200 --out=curated
    python scripts/draw_questions.py curated sets/emoji --embeddings=emoji.npz --out=docs/img

Copies with equal pixels look dull: of the copies, the least alike are drawn.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import simsiam_tf as ss

SIDE, GAP, TEXT = 48, 6, 14  # pixels: a picture, the space around it, a line of text under it
PAPER, INK = (255, 255, 255), (90, 90, 90)  # RGB
CELLS = 8  # pictures of a strip
Cell = tuple[str, str]  # name of a picture, text under it


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the strips that the options describe; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("curated", type=Path, help="the folder that curate has written")
    parser.add_argument("images", type=Path, help="the folder that the names of the pictures begin in")
    parser.add_argument("--embeddings", required=True, help="features of the same pictures, by embed")
    parser.add_argument("--cluster", default="0", help="number of the cluster to draw")
    parser.add_argument("--query", help="name of the query; by default the first picture to label")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the PNG files")
    args = parser.parse_args(argv)
    for name, cells in strips(args.curated, args.cluster).items():
        draw(cells, args.images, args.out / f"ask-{name}.png")
    known = ss.features.read_embeddings(args.embeddings)
    query = args.query or read_table(args.curated, "subset")[0]["name"]
    vector = known.features[list(known.names).index(query)]
    cells = [(query, "query")] + [
        (str(name), f"{cosine:.2f}") for name, cosine in known.neighbours(vector, CELLS) if name != query
    ]
    draw(cells[:CELLS], args.images, args.out / "ask-neighbours.png")
    return 0


def read_table(curated: Path, name: str) -> list[dict[str, str]]:
    """The rows of one of curate's tables."""
    with open(curated / f"{name}.csv", encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def strips(curated: Path, cluster: str) -> dict[str, list[Cell]]:
    """The cells of each strip, from the tables in a folder of curate."""
    copies = sorted(read_table(curated, "duplicates"), key=lambda row: float(row["cosine"]))[: CELLS // 2]
    members = [r["name"] for r in read_table(curated, "pictures") if r["cluster"] == cluster]
    return {
        "duplicates": [
            pair for r in copies for pair in ((r["keep"], ""), (r["name"], f"{float(r['cosine']):.4f}"))
        ],
        "cluster": [(name, "") for name in members[:: max(1, len(members) // CELLS)][:CELLS]],
        "outliers": [(r["name"], "") for r in read_table(curated, "outliers")[:CELLS]],
        "suspects": [(r["name"], r["looks_like"]) for r in read_table(curated, "suspects")[:CELLS]],
        "subset": [(r["name"], str(i + 1)) for i, r in enumerate(read_table(curated, "subset")[:CELLS])],
    }


def draw(cells: Sequence[Cell], images: Path, path: Path) -> None:
    """Writes a row of pictures, on white, each with the text under it."""
    from PIL import Image, ImageDraw, ImageFont

    from simsiam_tf.data.images.render import render

    canvas = Image.new("RGB", (CELLS * (SIDE + GAP) + GAP, SIDE + TEXT + 2 * GAP), PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=9)
    for i, (name, text) in enumerate(cells):
        x = GAP + i * (SIDE + GAP)
        picture = Image.fromarray(render((images / name).read_bytes()))
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        canvas.paste(picture, (x + (SIDE - picture.width) // 2, GAP + (SIDE - picture.height) // 2))
        pen.text((x + SIDE / 2, GAP + SIDE + TEXT / 2), text[:10], fill=INK, font=font, anchor="mm")
    canvas.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
