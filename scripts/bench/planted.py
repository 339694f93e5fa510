"""Plants copies, strangers and wrong labels into a set, and counts how many of them the answers find.

    bash scripts/sets.sh fashion_mnist sets/fashion_mnist
    bash scripts/sets.sh glyphs sets/glyphs
    python scripts/bench/planted.py sets/fashion_mnist --weights=runs/fashion --strangers=sets/glyphs \\
        --out=runs/planted

The set is of pictures of one domain that show different objects (docs/sets.md). For each of CHANGES,
`--copies` of them get a copy that is changed so. Ten pictures of the other set are strangers, and 3 % of the
labels are exchanged for another one. A row of the table is of raw pixels or of the network with random
weights, both whitened, or of the trained network as exported. In %:

- duplicates: of those that are found, how many are copies (precision) / of the copies, how many are found
  beside their source (recall). A set's own duplicates count against the precision;
- outliers: how many of the first ten are strangers;
- wrong labels: precision / recall;
- leaks: the copies and one half of the pictures are searched for in the other half, which has their sources:
  precision / recall of the copies.

A second table has the recall of each kind of copies. A third one has the duplicates by another threshold:
the cosine that 95 % of the pictures have at least with their copies of the kinds RE_ENCODED.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package and scripts

from scripts.sets.set_file import Picture, read_set, write_set  # noqa: E402
from simsiam_tf.command_line import cli  # noqa: E402
from simsiam_tf.runtime.errors import UserError  # noqa: E402

STRANGERS = 10  # fewer than the neighbours by which outliers are found
WRONG = 0.03  # share of exchanged labels
PIXELS = 16  # a side, of raw pixels


def _as_jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return Image.open(file)


def _cropped(picture: Image.Image) -> Image.Image:
    x, y = (max(1, round(side / 20)) for side in picture.size)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def _rotated(picture: Image.Image) -> Image.Image:
    corner = picture.getpixel((0, 0))
    return picture.rotate(5, Image.Resampling.BICUBIC, fillcolor=corner)  # pyright: ignore[reportArgumentType]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": lambda picture: picture,
    "JPEG, quality 75": _as_jpeg,
    "three quarters of the size": lambda picture: picture.resize(
        (max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)), Image.Resampling.BICUBIC
    ),
    "cropped by 5 % a side": _cropped,
    "darker by 20 %": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    "rotated by 5°": _rotated,
    "rotated by 90°": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
}

RE_ENCODED = ("JPEG, quality 75", "three quarters of the size")


def choose(rows: list[Picture], count: int, rng: np.random.Generator) -> list[Picture]:
    """`count` pictures of the set's commonest domain, no two of one object, with labels if any have them."""
    domains = sorted({row.domain for row in rows})
    domain = max(domains, key=lambda name: sum(row.domain == name for row in rows))
    kept = [row for row in rows if row.domain == domain]
    kept = [row for row in kept if row.label] or kept
    objects = {row.object or row.path: row for row in (kept[i] for i in rng.permutation(len(kept)))}
    return list(objects.values())[:count]


def plant(args: argparse.Namespace, folder: Path) -> list[Picture]:
    """Writes the pictures and the copies, strangers and labels that are planted; returns all rows.

    `object` of a copy is the path of its source, of a stranger "stranger"; `group` is the right label.
    """
    from simsiam_tf.data.images.render import render

    rng = np.random.default_rng(args.seed)
    rows = choose(read_set(args.folder), args.images, rng)
    if len(rows) < args.copies * len(CHANGES):
        kinds = f"{len(CHANGES)} kinds of copies"
        raise UserError(f"copies={args.copies}: {len(rows)} pictures are too few for {kinds}. Pass fewer.")
    labels = sorted({row.label for row in rows if row.label})
    planted: list[Picture] = []

    def add(path: str, picture: Image.Image, **fields: str) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / path)
        planted.append(Picture(path, **fields))

    def read(place: Path) -> Image.Image:
        return Image.fromarray(render(place.read_bytes()))

    wrong = set(rng.choice(len(rows), round(WRONG * len(rows)), replace=False)) if len(labels) > 1 else set()
    for i, row in enumerate(rows):
        label = rng.choice([name for name in labels if name != row.label]) if i in wrong else row.label
        add(f"p{i:05}.png", read(args.folder / row.path), label=str(label), group=row.label)
    source = 0
    for number, change in enumerate(CHANGES.values()):
        for _ in range(args.copies):
            row = planted[source]
            picture = change(read(folder / row.path))
            add(f"c{source:05}-{number}.png", picture, label=row.group, group=row.group, object=row.path)
            source += 1
    strangers = read_set(args.strangers)
    for i, j in enumerate(rng.choice(len(strangers), STRANGERS, replace=False)):
        add(f"s{i:05}.png", read(args.strangers / strangers[j].path), object="stranger")
    write_set(folder, planted)
    return planted


@dataclasses.dataclass(frozen=True)
class Scores:
    """Shares in [0, 1]; NaN where nothing was found or planted.

    duplicates, leaks, suspects: (precision, recall). outliers: precision of the first `STRANGERS`. kinds:
    recall of the duplicates by kind of change. threshold: cosine of the duplicates. by_copies: (cosine,
    precision, recall) of the duplicates by the threshold of RE_ENCODED.
    """

    duplicates: tuple[float, float]
    kinds: list[float]
    outliers: float
    suspects: tuple[float, float]
    leaks: tuple[float, float]
    threshold: float
    by_copies: tuple[float, float, float]


def find(features: np.ndarray, rows: list[Picture]) -> Scores:
    """Asks all questions of features [N, F] of the N rows of `plant`, and compares with what was planted."""
    from simsiam_tf import curation

    place = {row.path: i for i, row in enumerate(rows)}
    source = np.array([place.get(row.object, -1) for row in rows])
    kind = np.array([int(row.path[-5]) if source[i] >= 0 else -1 for i, row in enumerate(rows)])
    stranger = np.array([row.object == "stranger" for row in rows])
    copies = np.flatnonzero(source >= 0)
    graph = curation.neighbour_graph(features)
    origin = np.where(source >= 0, source, np.arange(len(rows)))  # the same for a picture and its copies

    def search(cosine: float | None) -> tuple[curation.Duplicates, tuple[float, float], np.ndarray]:
        """(duplicates, their precision and recall, whether each copy is found)."""
        found = curation.duplicates(features, graph, cosine, names=[row.path for row in rows])
        right = origin[found.others] == origin[found.kept[found.group]]
        beside = np.zeros(len(rows), bool)
        beside[origin[found.others[right]]] = True
        recalled = beside[source[copies]]
        return found, (*_shares(right.sum(), len(right), None)[:1], float(recalled.mean())), recalled

    found, duplicates, recalled = search(None)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    re_encoded = copies[np.isin(kind[copies], [list(CHANGES).index(name) for name in RE_ENCODED])]
    cosines = np.einsum("nf,nf->n", unit[re_encoded], unit[source[re_encoded]])
    measured, by_copies, _ = search(float(np.quantile(cosines, 0.05).clip(1e-6, 1)))
    distinct = curation.distinct_neighbours(features, graph, found)
    outliers = curation.outliers(features, distinct).rows[: stranger.sum()]

    labelled = np.flatnonzero([bool(row.label) for row in rows] & (source < 0))
    suspects = (np.nan, np.nan)
    if len({rows[i].label for i in labelled}) > 1:
        answer = curation.suspects(features[labelled], [rows[i].label for i in labelled])
        wrong = np.array([rows[i].label != rows[i].group for i in labelled])
        suspects = _shares(wrong[answer.rows].sum(), len(answer.rows), wrong.sum())

    # The other set: copies, and the second half of the pictures, of which none is in the first.
    original = np.flatnonzero((source < 0) & ~stranger)
    half = max(len(original) // 2, 1 + np.searchsorted(original, source.max()))
    queries, bank = np.append(copies, original[half:]), original[:half]
    leaks = curation.leaks(features[queries], features[bank], cosine=found.threshold)
    true = origin[queries[leaks.rows]] == bank[leaks.source]
    return Scores(
        duplicates,
        [float(recalled[kind[copies] == number].mean()) for number in range(len(CHANGES))],
        float(stranger[outliers].mean()),
        suspects,
        _shares(true.sum(), len(true), len(copies)),
        found.threshold,
        (measured.threshold, *by_copies),
    )


def _shares(right: int, found: int, planted: int | None) -> tuple[float, float]:
    """(precision, recall)."""
    return (
        float(right / found) if found else float("nan"),
        float(right / planted) if planted else float("nan"),
    )


def features_of(weights: str, folder: Path) -> dict[str, np.ndarray]:
    """Whitened features by name: of raw pixels, and of the network untrained and trained."""
    from simsiam_tf.data import open_source
    from simsiam_tf.evaluate import finishing
    from simsiam_tf.evaluate.label_free import untrained_backbone
    from simsiam_tf.features import extraction
    from simsiam_tf.pretrained.pretrained_backbone import open_pretrained

    pretrained = open_pretrained(weights)
    data = f"list:{folder / 'set.csv'}"
    source = open_source(data, "train", partial_labels=True, **pretrained.options_for(data, {}))
    features = {"raw pixels": extraction.raw_pixels(source, pretrained.views, side=PIXELS)}
    for name, network in (
        ("random weights", untrained_backbone(pretrained)), ("trained weights", pretrained.backbone),
    ):  # fmt: skip
        features[name] = extraction.extract(network, source, pretrained.views)
    for name, shrinkage in (("raw pixels", finishing.PIXEL_SHRINKAGE), ("random weights", None)):
        if fitted := finishing.fit_whitening(features[name], shrinkage):
            features[name] = fitted(features[name])
    return features


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a set that scripts/sets.sh has made")
    parser.add_argument("--weights", required=True, help="work folder of a run on this set")
    parser.add_argument("--strangers", type=Path, required=True, help="another set, for the strangers")
    parser.add_argument("--out", type=Path, required=True, help="folder for the planted set; replaced")
    parser.add_argument("--images", type=int, default=2000, help="most pictures of the set")
    parser.add_argument("--copies", type=int, default=30, help="copies of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with cli.heavy_imports():
        import simsiam_tf.features  # noqa: F401
    folder = args.out.expanduser() / args.folder.resolve().name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        plant(args, folder)
        rows = sorted(read_set(folder), key=lambda row: row.path)
        features = features_of(args.weights, folder)
    except (UserError, OSError, ValueError) as error:
        print(f"planted.py: {error}", file=sys.stderr)
        return 2
    found = {name: find(x, rows) for name, x in features.items()}
    percent = lambda values: " / ".join("–" if np.isnan(v) else f"{100 * v:.0f}" for v in values)  # noqa: E731
    print(f"{args.folder.resolve().name}: {len(rows):,} pictures\n")
    print("| features | duplicates | cosine | outliers | wrong labels | leaks |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, f in found.items():
        columns = [percent(f.duplicates), f"{f.threshold:.3f}", percent([f.outliers])]
        print(f"| {name} | {' | '.join([*columns, percent(f.suspects), percent(f.leaks)])} |")
    print(f"\n| copies | {' | '.join(CHANGES)} |\n| {' | '.join(['---'] * (1 + len(CHANGES)))} |")
    for name, f in found.items():
        print(f"| {name} | {' | '.join(percent([share]) for share in f.kinds)} |")
    print("\n| threshold by copies | cosine | duplicates |\n| --- | --- | --- |")
    for name, f in found.items():
        print(f"| {name} | {f.by_copies[0]:.3f} | {percent(f.by_copies[1:])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
