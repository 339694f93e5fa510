"""What a backbone makes of images: views, planes, neighbours, spectrum, saliency."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.features import extract, nearest
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.clusters import clusters, pca, tsne
from simsiam_tf.html_report.saliency import saliency
from simsiam_tf.html_report.sections import Section, photo
from simsiam_tf.html_report.spectrum import spectrum
from simsiam_tf.pretrained.pretrained_backbone import Pretrained

SHOWN = 8  # images in a grid
SHOWN_SALIENT = 6
THUMB = 112  # pixels that a small image is repeated to, at least


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some images of a source, what a backbone makes of them, and the groups they belong to.

    ids: int [n]. features: [n, F]. groups: int [n], classes or clusters. names: of the groups.
    labelled: whether they are classes.
    """

    pretrained: Pretrained
    source: Source
    ids: np.ndarray
    features: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    labelled: bool

    def name(self, row: int) -> str:
        """What an image is called: its file, or its number."""
        files = getattr(self.source, "names", None)
        return files[self.ids[row]] if files else f"image {self.ids[row]}"

    def pictures(self, rows: np.ndarray) -> np.ndarray:
        """The centre views of some of the images: uint8 [n, S, S, C]."""
        return _pictures(self.source, self.pretrained.views, self.ids[np.asarray(rows)])


def sample(pretrained: Pretrained, source: Source, images: int, seed: int = 0) -> Sample:
    """At most so many images of a source, drawn by the seed, with their features."""
    pretrained.check_channels(source)
    ids = np.sort(np.random.default_rng(seed).permutation(source.size)[:images])
    features = extract(pretrained.backbone, source, pretrained.views, ids)
    groups = None if source.labels is None else np.asarray(source.labels[ids])
    labelled = groups is not None and groups.min() >= 0  # −1: withheld, as TFDS has it
    if labelled:
        names = source.class_names or tuple(map(str, range(1 + int(groups.max()))))
    else:
        groups = clusters(features, seed=seed)
        names = tuple(f"group {g + 1}" for g in range(1 + int(groups.max())))
    return Sample(pretrained, source, ids, features, groups, names, labelled)


def views(pretrained: Pretrained, source: Source, seed: int) -> Section:
    """Images and two views of each, as the run made them."""
    ready = Views(pretrained.augmentation, count=2)
    rows = min(SHOWN, source.size)
    batch = next(pipeline.take(pipeline.StepBatches(source, ready, rows, seed).dataset(0, 1), 1))
    originals = _pictures(source, ready, batch["index"])
    pairs = [ready.denormalise(v).numpy() for v in batch["views"]]
    section = Section(
        "Views", ["What the network is shown: each image, and two views of it that it learns to tell alike."]
    )
    for i, original in enumerate(originals):
        strip = [photo(original, f"Image {batch['index'][i]}", "image", THUMB)]
        strip += [photo(v[i], f"A view of image {batch['index'][i]}", "view", THUMB) for v in pairs]
        section.strips.append(strip)
    return section


def planes(known: Sample, seed: int) -> Section:
    """PCA and t-SNE."""
    what, own = ("classes", "class") if known.labelled else ("groups found by k-means", "group")
    section = Section(
        "Embeddings on a plane",
        [f"{len(known.ids)} images of {known.source.name}, by {what}. The network has seen no label."],
    )
    plane, shares = pca(known.features)
    held = f"{shares.sum():.0%} of the variance"
    purity = _purity(known)
    near = f"{purity:.0%} of the images have a nearest neighbour of their own {own}"
    alt = f"PCA of {len(known.ids)} features by {what}; two directions hold {held}. {near.capitalize()}."
    section.charts.append(charts.scatter(plane, known.groups, f"PCA, {held}", alt))
    alt = f"t-SNE of {len(known.ids)} features by {what}: {', '.join(known.names[:20])}. {near.capitalize()}."
    flat = tsne(known.features, seed)
    section.charts.append(charts.scatter(flat, known.groups, "t-SNE", alt))
    section.text.append(f"{near}.".capitalize())
    shown = len(np.unique(known.groups))
    if shown <= charts.LOOKS:
        section.legend = charts.legend(known.groups, known.names)
    else:
        section.text.append(f"{shown} {what} are too many to be told apart by colours and marks.")
    return section


def _purity(known: Sample) -> float:
    _, rows = nearest(known.features, known.features, 2)
    other = np.where(rows[:, 0] == np.arange(len(rows)), rows[:, 1], rows[:, 0])
    return float(np.mean(known.groups[other] == known.groups))


def neighbours(known: Sample, count: int, seed: int) -> Section:
    """Some images, and those nearest to each by the cosine of their features."""
    asked = np.random.default_rng(seed).permutation(len(known.ids))[:SHOWN]
    cosines, rows = nearest(known.features, known.features[asked], count + 1)
    section = Section(
        "Neighbours", [f"An image, then the {count} nearest to it among the {len(known.ids)}, with cosines."]
    )
    for query, near, cosine in zip(asked, rows, cosines, strict=True):
        kept = [(r, c) for r, c in zip(near, cosine, strict=True) if r != query][:count]
        images = known.pictures([query, *(r for r, _ in kept)])
        strip = [photo(images[0], f"Asked: {_said(known, query)}", _said(known, query), THUMB)]
        strip += [
            photo(image, f"{_said(known, r)}, cosine {c:.3f}", f"{c:.2f} {_group(known, r)}", THUMB)
            for image, (r, c) in zip(images[1:], kept, strict=True)
        ]
        section.strips.append(strip)
    return section


def _group(known: Sample, row: int) -> str:
    return known.names[known.groups[row]] if known.labelled else ""


def _said(known: Sample, row: int) -> str:
    group = _group(known, row)
    return f"{known.name(row)}, {group}" if group else known.name(row)


def directions(known: Sample) -> Section:
    """The spectrum of the covariance."""
    found = spectrum(known.features)
    half, most = found.directions(0.5), found.directions(0.95)
    words = (
        f"Of {known.features.shape[1]} directions, {half} hold half of the variance and {most} hold 95 %; "
        f"the effective rank is {found.rank:.1f}."
    )
    return Section("Spectrum", [words], [charts.bars_of_spectrum(found.shares, found.rank, words)])


def salient(pretrained: Pretrained, source: Source, seed: int) -> Section:
    """Where two views of an image agree."""
    section = Section(
        "Saliency",
        [
            "Two views of an image, and what in the first one speaks for its likeness to the second "
            "(Grad-CAM of the cosine of their features)."
        ],
    )
    ready = Views(dataclasses.replace(pretrained.augmentation, jitter_p=0.0, gray_p=0.0, blur_p=0.0), count=2)
    rows = min(SHOWN_SALIENT, source.size)
    batch = next(pipeline.take(pipeline.StepBatches(source, ready, rows, seed + 1).dataset(0, 1), 1))
    try:
        maps = saliency(pretrained.backbone, *batch["views"])
    except ValueError as error:
        section.text.append(f"Left out: {error}")
        return section
    first, second = (ready.denormalise(v).numpy() for v in batch["views"])
    for i, shown in enumerate(maps):
        number, place = batch["index"][i], np.unravel_index(shown.argmax(), shown.shape)
        where = f"strongest {_place(*place, len(shown))}" if shown.max() > 0 else "nowhere"
        section.strips.append(
            [
                photo(first[i], f"A view of image {number}", "view", THUMB),
                photo(second[i], f"Another view of image {number}", "other view", THUMB),
                photo(charts.heat(first[i], shown), f"Saliency on the first view: {where}", where, THUMB),
            ]
        )
    return section


def _place(row: int, column: int, size: int) -> str:
    vertical = ("at the top", "in the middle", "at the bottom")[min(2, 3 * row // size)]
    return f"{vertical}, {('left', 'centre', 'right')[min(2, 3 * column // size)]}"


def _pictures(source: Source, ready: Views, ids: np.ndarray) -> np.ndarray:
    batches = pipeline.take(pipeline.centred(source, ready, ids, max(1, len(ids))), 1)
    return ready.denormalise(tf.constant(next(batches))).numpy()
