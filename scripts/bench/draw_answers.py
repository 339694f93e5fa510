"""Draws pictures of a set, each beside the nearest pictures of other domains, by raw pixels and embeddings.

    bash scripts/sets.sh emoji sets/emoji
    python -m simsiam_tf.embed --weights=runs/emoji --data=folder:sets/emoji --out=emoji.npz
    python scripts/bench/draw_answers.py sets/emoji --embeddings=emoji.npz --domains=google,twitter

Each query takes two rows: neighbours by whitened raw pixels, and neighbours by the features that the backbone
exports. The captions are the object and, under neighbours, the cosine. Queries are chosen at random from the
pictures whose object is in another domain, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package and scripts

import set_answers  # noqa: E402

from scripts import draw_neighbours  # noqa: E402
from scripts.sets.set_file import Picture, read_set  # noqa: E402
from simsiam_tf.command_line import cli  # noqa: E402
from simsiam_tf.runtime.errors import UserError  # noqa: E402

LETTERS = 12  # length to which the names of objects are cut


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a set with pairs that scripts/sets.sh has made")
    parser.add_argument("--embeddings", type=Path, required=True, help="features by simsiam_tf.embed")
    parser.add_argument("--domains", help="only pictures of these, separated by commas")
    parser.add_argument("--queries", type=int, default=3)
    parser.add_argument("--neighbours", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of queries")
    parser.add_argument("--out", default="answers.png", help="PNG file to write")
    args = parser.parse_args(argv)
    with cli.heavy_imports():
        import simsiam_tf.features  # noqa: F401
    try:
        rows = set_answers.of_domains(read_set(args.folder), args.domains)
        before = set_answers.raw_pixels(args.folder, rows)
        after = set_answers.embedded(args.embeddings, rows)
        queries = choose_queries(rows, args.queries, args.seed)
    except (UserError, OSError, ValueError) as error:
        print(f"draw_answers.py: {error}", file=sys.stderr)
        return 2
    drawn, titles = [], ("raw pixels", "features")
    both = set_answers.prepare(before, whiten=True), set_answers.prepare(after)
    for query in queries:
        for title, features in zip(titles, both, strict=True):
            found = nearest_elsewhere(features, rows, query, args.neighbours)
            cells = [
                (args.folder, rows[query], title),
                *((args.folder, rows[i], f"{c:.2f}") for i, c in found),
            ]
            drawn.append([cell(*parts) for parts in cells])
    draw_neighbours.draw(drawn, args.out)
    return 0


def choose_queries(rows: Sequence[Picture], count: int, seed: int) -> list[int]:
    """Chooses, at random, `count` rows of distinct objects, each of which is in several domains."""
    domains: dict[str, set[str]] = {}
    for row in rows:
        if row.object:
            domains.setdefault(row.object, set()).add(row.domain)
    shared = [i for i, row in enumerate(rows) if len(domains.get(row.object, ())) > 1]
    chosen: dict[str, int] = {}
    for i in np.random.default_rng(seed).permutation(shared):
        chosen.setdefault(rows[i].object, int(i))
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} objects are in several domains; --queries={count} is more")
    return [*chosen.values()][:count]


def nearest_elsewhere(
    features: np.ndarray, rows: Sequence[Picture], query: int, count: int
) -> list[tuple[int, float]]:
    """(row, cosine) of the nearest pictures in other domains than the query's, the nearest first."""
    cosines = features @ features[query]
    cosines[[row.domain == rows[query].domain for row in rows]] = -np.inf
    return [(int(i), float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:count]]


def cell(folder: Path, picture: Picture, text: str) -> tuple[np.ndarray, str, str]:
    """A picture with its object and a text, as `draw_neighbours.draw` takes it."""
    from simsiam_tf.data.images.render import render

    return render((folder / picture.path).read_bytes()), picture.object[-LETTERS:], text


if __name__ == "__main__":
    sys.exit(main())
