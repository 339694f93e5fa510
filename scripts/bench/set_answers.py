"""Asks the questions of a set that scripts/sets.sh has made, of embeddings or of raw pixels.

    bash scripts/sets.sh emoji sets/emoji
    python -m simsiam_tf.embed --weights=runs/emoji --data=folder:sets/emoji --out=emoji.npz
    python scripts/bench/set_answers.py sets/emoji --embeddings=emoji.npz
    python scripts/bench/set_answers.py sets/emoji --raw_pixels
    python scripts/bench/set_answers.py sets/emoji --untrained=runs/emoji --domains=google,twitter

Category: the label of a picture by kNN (k = 20), among pictures of other groups. Pair: whether the nearest
picture in another domain shows the same object, asked of each picture for each other domain that has the
object. Where a set has test rows, they are the queries: the train rows, which pre-training sees, tell their
category, and the pairs are among the test rows. Features are centred by their mean over the set, with
--whiten whitened as well, and divided by their length.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package and scripts

from scripts.sets.set_file import Picture, read_set  # noqa: E402
from simsiam_tf.command_line import cli  # noqa: E402
from simsiam_tf.runtime.errors import UserError  # noqa: E402

K = 20
SIDE = 16  # pixels, of raw pixels
BLOCK = 1000  # queries at a time


def answers(features: np.ndarray, rows: Sequence[Picture], k: int = K) -> dict[str, float]:
    """Accuracies in [0, 1], those of guesses, and numbers of questions.

    features: [N, F], as `prepare` gives them. rows: the N pictures.

    Returns:
        "category", "category_chance" (the commonest label is always right), "category_questions", "pair",
        "pair_chance" (a picture drawn from the other domain is), "pair_questions"; those of a question that
        the set does not ask are missing.
    """
    if len(features) != len(rows):
        raise ValueError(f"{len(features)} features of {len(rows)} pictures")
    return {**category_answers(features, rows, k), **pair_answers(features, rows)}


def category_answers(features: np.ndarray, rows: Sequence[Picture], k: int = K) -> dict[str, float]:
    """The kNN accuracy of the labels, among pictures of other groups."""
    from simsiam_tf.features.knn import vote_accuracy

    label, labelled = _ids([row.label for row in rows])
    test = np.array([row.split == "test" for row in rows]) & labelled
    queries, bank = (
        np.flatnonzero(part) for part in ((test, labelled & ~test) if test.any() else [labelled] * 2)
    )
    if not len(queries):
        return {}
    group, _ = _ids([row.group for row in rows])
    similarity, index = _nearest(features, queries, bank, group, k)
    answered = np.isfinite(similarity[:, 0])
    truth = label[queries[answered]]
    accuracy = vote_accuracy(similarity[answered], label[index[answered]], truth, [k])[k]
    chance = np.bincount(truth).max() / len(truth)
    return {"category": accuracy, "category_chance": float(chance), "category_questions": len(truth)}


def pair_answers(features: np.ndarray, rows: Sequence[Picture]) -> dict[str, float]:
    """The share of nearest pictures in another domain that show the same object."""
    object_, named = _ids([row.object for row in rows])
    test = np.array([row.split == "test" for row in rows]) & named
    asked = np.flatnonzero(test if test.any() else named)
    domain = np.array([row.domain for row in rows])
    itself = np.arange(len(rows))
    right, chance = [], []
    for name in np.unique(domain[asked]):
        bank = asked[domain[asked] == name]
        # Pictures of no domain are sought among each other; those of a domain, in every other one.
        queries = asked[domain[asked] != name] if name else bank
        counts = np.bincount(object_[bank], minlength=len(rows))[object_[queries]] - (not name)
        queries, counts = queries[counts > 0], counts[counts > 0]
        if len(queries):
            _, index = _nearest(features, queries, bank, itself, 1)
            right.append(object_[index[:, 0]] == object_[queries])
            chance.append(counts / (len(bank) - (not name)))
    if not right:
        return {}
    right, chance = np.concatenate(right), np.concatenate(chance)
    return {"pair": float(right.mean()), "pair_chance": float(chance.mean()), "pair_questions": len(right)}


def _ids(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(a number for each name, whether it is a name): "" equals nothing, and is numbered after all names."""
    unlike = [name or f"\uffff{i}" for i, name in enumerate(names)]
    return np.unique(unlike, return_inverse=True)[1], np.array([bool(name) for name in names])


def _nearest(
    features: np.ndarray, queries: np.ndarray, bank: np.ndarray, group: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(cosines [M, k], rows [M, k]) of the nearest rows of `bank` in another group than a query's.

    The nearest first; −inf where fewer than k rows are in other groups.
    """
    k = min(k, len(bank))
    cosines, index = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    others = features[bank].T
    for start in range(0, len(queries), BLOCK):
        part = queries[start : start + BLOCK]
        similarity = features[part] @ others
        similarity[group[part][:, None] == group[bank][None]] = -np.inf
        top = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(similarity, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        cosines[start : start + BLOCK] = np.take_along_axis(values, order, axis=1)
        index[start : start + BLOCK] = bank[np.take_along_axis(top, order, axis=1)]
    return cosines, index


def prepare(features: np.ndarray, whiten: bool = False) -> np.ndarray:
    """Features [N, F], centred, whitened where asked, of length 1; float32.

    Whitening divides by √(variance + shrinkage · mean variance) along the principal components, with the
    shrinkage that an exported network would have.
    """
    from simsiam_tf.evaluate.finishing import chosen_shrinkage

    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    if whiten:
        variances, axes = np.linalg.eigh(x.T @ x / len(x))
        x = x @ axes / np.sqrt(np.maximum(variances, 0) + chosen_shrinkage(x) * variances.mean())
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def raw_pixels(folder: Path, rows: Sequence[Picture]) -> np.ndarray:
    """[N, SIDE·SIDE·3]: pictures on white, in colours, shrunk by Pillow's bicubic filter, in [0, 1]."""
    from PIL import Image

    from simsiam_tf.data.images.render import render

    pixels = np.empty((len(rows), SIDE * SIDE * 3), np.float32)
    for i, row in enumerate(rows):
        picture = Image.fromarray(render((folder / row.path).read_bytes()))
        pixels[i] = (
            np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32).ravel() / 255
        )
    return pixels


def embedded(file: Path, rows: Sequence[Picture]) -> np.ndarray:
    """The features of a file of `simsiam_tf.embed`, in the order of the rows."""
    from simsiam_tf.features.embedding_file import read_embeddings

    embeddings = read_embeddings(file)
    place = {str(name): i for i, name in enumerate(embeddings.names)}
    missing = [row.path for row in rows if row.path not in place]
    if missing:
        raise UserError(
            f"{file}: has no features of {len(missing)} of {len(rows)} pictures, such as {missing[0]}. Embed "
            "--data=folder:FOLDER, which takes the test rows as well."
        )
    return np.asarray(embeddings.features)[[place[row.path] for row in rows]]


def untrained(weights: str, folder: Path, rows: Sequence[Picture]) -> np.ndarray:
    """Features of the network of a work folder with random weights, whitened where the exported ones are."""
    from simsiam_tf.data import open_source
    from simsiam_tf.evaluate import finishing
    from simsiam_tf.evaluate.label_free import untrained_backbone
    from simsiam_tf.features import extraction
    from simsiam_tf.nets.whitening import whitening_layer
    from simsiam_tf.pretrained.pretrained_backbone import open_pretrained

    pretrained = open_pretrained(weights)
    source = open_source(f"folder:{folder}", "train", **pretrained.options_for(f"folder:{folder}", {}))
    place = {name: i for i, name in enumerate(getattr(source, "names", ()))}
    ids = np.array([place[row.path] for row in rows])
    features = extraction.extract(untrained_backbone(pretrained), source, pretrained.views, ids)
    if whitening_layer(pretrained.backbone) is not None and (fit := finishing.fit_whitening(features)):
        features = fit(features)
    return features


def of_domains(rows: Sequence[Picture], domains: str | None) -> list[Picture]:
    """The pictures of some domains, whose names are separated by commas; all without names."""
    return [row for row in rows if not domains or row.domain in domains.split(",")]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a set that scripts/sets.sh has made")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--embeddings", type=Path, metavar="FILE", help="features by simsiam_tf.embed")
    source.add_argument(
        "--raw_pixels", action="store_true", help=f"pictures of {SIDE}×{SIDE} pixels as features"
    )
    source.add_argument(
        "--untrained", metavar="RUN", help="the network of this work folder, with random weights"
    )
    parser.add_argument("--domains", help="only pictures of these, separated by commas")
    parser.add_argument("--whiten", action="store_true", help="whiten the features")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    args = parser.parse_args(argv)
    with cli.heavy_imports():
        import simsiam_tf.features  # noqa: F401
    try:
        rows = of_domains(read_set(args.folder), args.domains)
        if args.untrained:
            features = untrained(args.untrained, args.folder, rows)
        elif args.raw_pixels:
            features = raw_pixels(args.folder, rows)
        else:
            features = embedded(args.embeddings, rows)
    except (UserError, OSError, ValueError) as error:
        print(f"set_answers.py: {error}", file=sys.stderr)
        return 2
    result = answers(prepare(features, args.whiten), rows)
    print(f"{args.folder.resolve().name}: {len(rows):,} pictures, {features.shape[1]} features")
    for name, question in (("category", f"category, kNN-{K}"), ("pair", "pair, nearest")):
        if name in result:
            accuracy, chance = (100 * result[key] for key in (name, f"{name}_chance"))
            asked = result[f"{name}_questions"]
            print(f"  {question:<18}{accuracy:6.2f} %   (chance {chance:.2f} %; {asked:,} questions)")
    if args.json:
        import bench_harness

        metadata = {"set": args.folder.resolve().name, "whiten": args.whiten, "features": features.shape[1]}
        metadata["of"] = "raw pixels" if args.raw_pixels else str(args.embeddings or args.untrained)
        bench_harness.write_json(args.json, {**metadata, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
