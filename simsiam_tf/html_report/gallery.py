"""Sections with images: views, projections, neighbours, spectrum, saliency."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.features import extract, nearest
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.projections import clusters, pca, spectrum, tsne
from simsiam_tf.html_report.saliency import saliency
from simsiam_tf.html_report.sections import Section, photo
from simsiam_tf.pretrained.pretrained_backbone import Pretrained

IMAGES_SHOWN = 8
SALIENCY_IMAGES = 6
MIN_WIDTH = 112  # pixels of a small image are repeated to at least this width


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some images of a source, with their features and groups.

    ids: int [n]. features: [n, F]. groups: int [n], classes or clusters. names: one for each group.
    labelled: whether the groups are classes.
    """

    pretrained: Pretrained
    source: Source
    ids: np.ndarray
    features: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    labelled: bool

    def name(self, row: int) -> str:
        """The file of an image, or its number."""
        files = getattr(self.source, "names", None)
        return files[self.ids[row]] if files else f"image {self.ids[row]}"

    def class_name(self, row: int) -> str:
        """The class of an image; empty where the groups are clusters."""
        return self.names[self.groups[row]] if self.labelled else ""

    def title(self, row: int) -> str:
        """The name of an image and its class."""
        return ", ".join(filter(None, (self.name(row), self.class_name(row))))

    def pictures(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """The centre views of some of the images: uint8 [n, S, S, C]."""
        return _centre_views(self.source, self.pretrained.views, self.ids[np.asarray(rows)])


def draw_sample(pretrained: Pretrained, source: Source, images: int, seed: int = 0) -> Sample:
    """At most `images` images of a source, drawn by the seed, with their features."""
    pretrained.check_channels(source)
    ids = np.sort(np.random.default_rng(seed).permutation(source.size)[:images])
    features = extract(pretrained.backbone, source, pretrained.views, ids)
    labels = None if source.labels is None else np.asarray(source.labels[ids])
    if labels is not None and labels.min() >= 0:  # −1 in TFDS stands for a label that is withheld
        names = source.class_names or tuple(map(str, range(1 + int(labels.max()))))
        return Sample(pretrained, source, ids, features, labels, names, labelled=True)
    groups = clusters(features, seed=seed)
    names = tuple(f"group {g + 1}" for g in range(1 + int(groups.max())))
    return Sample(pretrained, source, ids, features, groups, names, labelled=False)


def views_section(pretrained: Pretrained, source: Source, seed: int) -> Section:
    """Images, and two views of each by the augmentation of the run."""
    views = Views(pretrained.augmentation, count=2)
    ids, first, second = _two_views(views, source, IMAGES_SHOWN, seed)
    originals = _centre_views(source, views, ids)
    section = Section(
        "Views", ["Each image, then two random views of it. The network learns to represent both alike."]
    )
    for number, original, *pair in zip(ids, originals, first, second, strict=True):
        strip = [photo(original, f"Image {number}", "image", MIN_WIDTH)]
        strip += [photo(view, f"A view of image {number}", "view", MIN_WIDTH) for view in pair]
        section.strips.append(strip)
    return section


def projection_section(sample: Sample, seed: int) -> Section:
    """PCA and t-SNE of the features, coloured by group."""
    groups, group = ("classes", "class") if sample.labelled else ("groups found by k-means", "group")
    count = len(sample.ids)
    section = Section(
        "Embeddings on a plane",
        [f"{count} images of {sample.source.name}, by {groups}. The network was trained without labels."],
    )
    plane, shares = pca(sample.features)
    variance = f"{shares.sum():.0%} of the variance"
    same_group = (
        f"{_neighbour_agreement(sample):.0%} of the images have a nearest neighbour of their own {group}."
    )
    alt = f"PCA of {count} features by {groups}; two directions hold {variance}. {same_group}"
    section.charts.append(charts.scatter(plane, sample.groups, f"PCA, {variance}", alt))
    alt = f"t-SNE of {count} features by {groups}: {', '.join(sample.names[:20])}. {same_group}"
    section.charts.append(charts.scatter(tsne(sample.features, seed), sample.groups, "t-SNE", alt))
    section.text.append(same_group)
    shown = len(np.unique(sample.groups))
    if shown <= charts.LOOKS:
        section.legend = charts.legend(sample.groups, sample.names)
    else:
        section.text.append(f"{shown} {groups} are too many to be told apart by colours and marks.")
    return section


def _neighbour_agreement(sample: Sample) -> float:
    """The share of images whose nearest neighbour belongs to the same group."""
    _, rows = nearest(sample.features, sample.features, 2)
    other = np.where(rows[:, 0] == np.arange(len(rows)), rows[:, 1], rows[:, 0])
    return float(np.mean(sample.groups[other] == sample.groups))


def neighbours_section(sample: Sample, count: int, seed: int) -> Section:
    """Some images, and the nearest others to each by the cosine of the features."""
    queries = np.random.default_rng(seed).permutation(len(sample.ids))[:IMAGES_SHOWN]
    cosines, rows = nearest(sample.features, sample.features[queries], count + 1)
    section = Section(
        "Neighbours",
        [f"An image, then the {count} nearest to it among {len(sample.ids)} images, with their cosines."],
    )
    for query, near, cosine in zip(queries, rows, cosines, strict=True):
        others = [(r, c) for r, c in zip(near, cosine, strict=True) if r != query][:count]
        pictures = sample.pictures([query, *(r for r, _ in others)])
        strip = [photo(pictures[0], f"Query: {sample.title(query)}", sample.title(query), MIN_WIDTH)]
        strip += [
            photo(picture, f"{sample.title(r)}, cosine {c:.3f}", f"{c:.2f} {sample.class_name(r)}", MIN_WIDTH)
            for picture, (r, c) in zip(pictures[1:], others, strict=True)
        ]
        section.strips.append(strip)
    return section


def spectrum_section(sample: Sample) -> Section:
    """The spectrum of the features' covariance."""
    eigen = spectrum(sample.features)
    half, nearly_all = eigen.directions(0.5), eigen.directions(0.95)
    words = (
        f"Of {sample.features.shape[1]} directions, {half} hold half of the variance and {nearly_all} hold "
        f"95 %; the effective rank is {eigen.rank:.1f}."
    )
    return Section("Spectrum", [words], [charts.spectrum_chart(eigen.shares, eigen.rank, words)])


def saliency_section(pretrained: Pretrained, source: Source, seed: int) -> Section:
    """The regions by which two views of an image agree."""
    section = Section(
        "Saliency",
        [
            "Two views of an image, and the regions of the first view that make its features similar to "
            "those of the second (Grad-CAM of their cosine)."
        ],
    )
    views = Views(dataclasses.replace(pretrained.augmentation, jitter_p=0.0, gray_p=0.0, blur_p=0.0), count=2)
    ids, first, second, *batch = _two_views(views, source, SALIENCY_IMAGES, seed + 1, normalised=True)
    try:
        maps = saliency(pretrained.backbone, *batch)
    except ValueError as error:
        section.text.append(f"Left out: {error}")
        return section
    for number, one, other, heat in zip(ids, first, second, maps, strict=True):
        where = _place(heat) if heat.max() > 0 else "nowhere"
        section.strips.append(
            [
                photo(one, f"A view of image {number}", "view", MIN_WIDTH),
                photo(other, f"Another view of image {number}", "other view", MIN_WIDTH),
                photo(charts.heat_map(one, heat), f"Saliency on the first view: {where}", where, MIN_WIDTH),
            ]
        )
    return section


def _place(heat: np.ndarray) -> str:
    """Where a map [S, S] is largest, in words."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    vertical = ("at the top", "in the middle", "at the bottom")[min(2, 3 * int(row) // len(heat))]
    return f"strongest {vertical}, {('left', 'centre', 'right')[min(2, 3 * int(column) // len(heat))]}"


def _two_views(views: Views, source: Source, images: int, seed: int, normalised: bool = False) -> list:
    """[ids, first views, second views] of step 0, in uint8; then, if asked, the same views normalised."""
    batches = pipeline.StepBatches(source, views, min(images, source.size), seed).dataset(0, 1)
    (batch,) = batches.as_numpy_iterator()
    shown = [views.denormalise(view).numpy() for view in batch["views"]]
    return [batch["index"], *shown, *(batch["views"] if normalised else ())]


def _centre_views(source: Source, views: Views, ids: np.ndarray) -> np.ndarray:
    (images,) = pipeline.evaluation_views(source, views, ids, max(1, len(ids)))
    return views.denormalise(images).numpy()
