"""Sections with images: views, projections, neighbours, spectrum, saliency."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.features import extract, nearest
from simsiam_tf.html_report import charts
from simsiam_tf.html_report.projections import clusters, pca, tsne, variance_shares
from simsiam_tf.html_report.saliency import saliency
from simsiam_tf.html_report.sections import Section, photo
from simsiam_tf.methods import metrics
from simsiam_tf.nets.whitening import without_whitening
from simsiam_tf.pretrained.pretrained_backbone import Pretrained

IMAGES_SHOWN = 8
SALIENCY_IMAGES = 6


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some images of a source, with their features and groups.

    ids: int [n], indices of the images in the source. features: [n, F]. trained_features: the pooled ones,
    before they are finished, if they are. groups: int [n], number of the class
    or cluster of each image. names: names of the groups. labelled: whether groups are classes, not clusters.
    """

    pretrained: Pretrained
    source: Source
    ids: np.ndarray
    features: np.ndarray
    trained_features: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    labelled: bool

    def name(self, row: int) -> str:
        """The file of the image in a row of the sample, or its id in the source."""
        files = getattr(self.source, "names", None)
        return files[self.ids[row]] if files else f"image {self.ids[row]}"

    def class_name(self, row: int) -> str:
        """The class of the image in a row of the sample; empty where the groups are clusters."""
        return self.names[self.groups[row]] if self.labelled else ""

    def pictures(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """The evaluation views of the images in some rows of the sample: uint8 [n, S, S, C]."""
        return _evaluation_views(self.source, self.pretrained.views, self.ids[np.asarray(rows)])


def draw_sample(pretrained: Pretrained, source: Source, images: int, seed: int = 0) -> Sample:
    """Draws at most `images` images of a source, computes their features, and groups them.

    Groups are the classes where all drawn images have labels, else clusters of the features.

    Raises:
        UserError: the backbone takes another number of channels.
    """
    pretrained.check_channels(source)
    ids = np.sort(np.random.default_rng(seed).permutation(source.size)[:images])
    pooled = without_whitening(pretrained.backbone)
    trained = extract(pooled, source, pretrained.views, ids)
    finished = pretrained.backbone is not pooled
    features = extract(pretrained.backbone, source, pretrained.views, ids) if finished else trained
    labels = None if source.labels is None else np.asarray(source.labels[ids])
    if labels is not None and labels.min() >= 0:  # −1: an image without a label
        names = source.class_names or tuple(map(str, range(1 + int(labels.max()))))
        return Sample(pretrained, source, ids, features, trained, labels, names, labelled=True)
    groups = clusters(features, seed=seed)
    names = tuple(f"group {g + 1}" for g in range(1 + int(groups.max())))
    return Sample(pretrained, source, ids, features, trained, groups, names, labelled=False)


def views_section(pretrained: Pretrained, source: Source, seed: int) -> Section:
    """Images, and two random views of each by the backbone's augmentation."""
    text = "Each image, then two random views of it. The network learns to represent both alike."
    section = Section("Views", [text])
    views = Views(pretrained.augmentation, count=2)
    ids, _, pairs = _two_views(views, source, IMAGES_SHOWN, seed)
    for number, image, *pair in zip(ids, _evaluation_views(source, views, ids), *pairs, strict=True):
        strip = [photo(image, f"Image {number}", "image")]
        section.strips.append(strip + [photo(view, f"A view of image {number}", "view") for view in pair])
    return section


def projection_section(sample: Sample, seed: int) -> Section:
    """PCA and t-SNE of the features, with colours and marks by group."""
    groups, group = ("classes", "class") if sample.labelled else ("groups found by k-means", "group")
    count = len(sample.ids)
    _, rows = nearest(sample.features, sample.features, 2)
    other = np.where(rows[:, 0] == np.arange(count), rows[:, 1], rows[:, 0])
    share = np.mean(sample.groups[other] == sample.groups)
    same_group = f"{share:.0%} of the images have a nearest neighbour of their own {group}."
    plane, shares = pca(sample.features)
    variance = f"{shares.sum():.0%} of the variance"
    pca_alt = f"PCA of {count} features by {groups}; two directions hold {variance}. {same_group}"
    tsne_alt = f"t-SNE of {count} features by {groups}: {', '.join(sample.names[:20])}. {same_group}"
    section = Section(
        "Embeddings on a plane",
        [
            f"{count} images of {sample.source.name}, by {groups}, which the network was not trained by.",
            same_group,
        ],
        [
            charts.scatter_chart(plane, sample.groups, f"PCA, {variance}", pca_alt),
            charts.scatter_chart(tsne(sample.features, seed), sample.groups, "t-SNE", tsne_alt),
        ],
    )
    shown = len(np.unique(sample.groups))
    if shown <= charts.MAX_GROUPS:
        section.legend = charts.legend(sample.groups, sample.names)
    else:
        section.text.append(f"{shown} {groups} are too many to be told apart by colours and marks.")
    return section


def neighbours_section(sample: Sample, count: int, seed: int) -> Section:
    """Some images, and the `count` nearest others to each by the cosine of the features."""
    queries = np.random.default_rng(seed).permutation(len(sample.ids))[:IMAGES_SHOWN]
    cosines, rows = nearest(sample.features, sample.features[queries], count + 1)
    text = f"An image, then the {count} nearest to it among {len(sample.ids)} images, with their cosines."
    section = Section("Neighbours", [text])
    for query, near, cosine in zip(queries, rows, cosines, strict=True):
        others = [(r, c) for r, c in zip(near, cosine, strict=True) if r != query][:count]
        query_picture, *pictures = sample.pictures([query, *(r for r, _ in others)])
        strip = [photo(query_picture, f"Query: {_title(sample, query)}", _title(sample, query))]
        for picture, (r, c) in zip(pictures, others, strict=True):
            alt = f"{_title(sample, r)}, cosine {c:.3f}"
            strip.append(photo(picture, alt, f"{c:.2f} {sample.class_name(r)}"))
        section.strips.append(strip)
    return section


def _title(sample: Sample, row: int) -> str:
    """The name of an image and its class."""
    return ", ".join(filter(None, (sample.name(row), sample.class_name(row))))


def spectrum_section(sample: Sample) -> Section:
    """The spectrum of the covariance of the features as they were trained, before a whitening."""
    features = sample.trained_features
    shares, rank = variance_shares(features), metrics.effective_rank(features)
    half, nearly_all = 1 + np.searchsorted(np.cumsum(shares), [0.5 - 1e-12, 0.95 - 1e-12])
    text = (
        f"Of {len(shares)} directions, {half} hold half of the variance and {nearly_all} hold 95 %; the "
        f"effective rank is {rank:.1f}."
    )
    return Section("Spectrum", [text], [charts.spectrum_chart(shares, rank, text)])


def saliency_section(pretrained: Pretrained, source: Source, seed: int) -> Section:
    """The regions by which two views of an image agree."""
    text = (
        "Two views of an image, and the regions of the first view that make its features similar to those of "
        "the second (HiResCAM, a form of Grad-CAM, of their cosine)."
    )
    section = Section("Saliency", [text])
    views = Views(dataclasses.replace(pretrained.augmentation, jitter_p=0.0, gray_p=0.0, blur_p=0.0), count=2)
    ids, batch, pairs = _two_views(views, source, SALIENCY_IMAGES, seed + 1)
    try:
        maps = saliency(pretrained.backbone, *batch)
    except ValueError as error:
        section.text.append(f"Left out: {error}")
        return section
    for number, view, other, heat in zip(ids, *pairs, maps, strict=True):
        region = _strongest_region(heat)
        section.strips.append(
            [
                photo(view, f"A view of image {number}", "view"),
                photo(other, f"Another view of image {number}", "other view"),
                photo(charts.heat_map(view, heat), f"Saliency on the first view: {region}", region),
            ]
        )
    return section


def _strongest_region(heat: np.ndarray) -> str:
    """Where a map [S, S] is largest, in words."""
    if heat.max() <= 0:
        return "nowhere"
    row, column = 3 * np.array(np.unravel_index(heat.argmax(), heat.shape)) // len(heat)
    vertical, horizontal = ("at the top", "in the middle", "at the bottom"), ("left", "centre", "right")
    return f"strongest {vertical[row]}, {horizontal[column]}"


def _two_views(views: Views, source: Source, images: int, seed: int) -> tuple:
    """(ids, the two normalised views of each image at step 0, the same views in uint8)."""
    batches = pipeline.StepBatches(source, views, min(images, source.size), seed).dataset(0, 1)
    (batch,) = batches.as_numpy_iterator()
    return batch["index"], batch["views"], [views.denormalise(view).numpy() for view in batch["views"]]


def _evaluation_views(source: Source, views: Views, ids: np.ndarray) -> np.ndarray:
    (images,) = pipeline.evaluation_views(source, views, ids, max(1, len(ids)))
    return views.denormalise(images).numpy()
