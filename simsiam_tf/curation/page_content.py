"""The content of the page about a set: a map, and a gallery for each answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simsiam_tf.curation.answer_files import cluster_words
from simsiam_tf.curation.answers import Answers
from simsiam_tf.curation.picture_scan import Scan
from simsiam_tf.curation.picture_set import PictureSet
from simsiam_tf.curation.statistics import FIELDS
from simsiam_tf.curation.suspects import LABELS_DO_NOT_FIT
from simsiam_tf.curation_page.content import Categories, CurationContent, Gallery, Numbers, PictureGroup
from simsiam_tf.curation_page.projection import Projection
from simsiam_tf.curation_page.thumbnails import encode_thumbnail
from simsiam_tf.data.images.render import render
from simsiam_tf.data.sources.addresses import read_bytes
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.runtime.display_text import counted, printable_text

SHOWN_GROUPS = 200  # of duplicates, and clusters
SHOWN_COPIES = 24  # pictures of a group of duplicates
SHOWN = 120  # pictures of an answer that are shown
ODDEST = 12  # pictures for each statistic


def page_content(
    pictures: PictureSet, answers: Answers, scan: Scan | None, against: PictureSet | None,
    projection: Projection,
) -> CurationContent:  # fmt: skip
    """The content of the page. Without `scan`, no statistics are shown. projection: of the pictures."""
    clusters = answers.clusters
    columns: list[Categories | Numbers] = [
        Categories("Cluster", clusters.cluster, [str(c) for c in range(len(clusters.size))])
    ]
    if pictures.labels is not None:
        names, codes = np.unique(pictures.labels.astype(str), return_inverse=True)
        if names[0] == "":
            names, codes = names[1:], codes - 1
        columns.insert(0, Categories("Label", codes, names.tolist()))
    score = answers.outliers.score
    columns.append(Numbers("Outlier score", score, "High: far from its neighbours."))
    if scan is not None:
        columns += [Numbers(name.capitalize(), getattr(scan.statistics, name)) for name in FIELDS]
    return CurationContent(
        names=[str(name) for name in pictures.names], points=projection.points,
        thumbnail=thumbnails(pictures), columns=columns,
        neighbours=answers.graph.index, cosines=answers.graph.cosine,
        galleries=galleries(pictures, answers, scan, against),
        title=printable_text(pictures.source.name) if pictures.source else "Curation",
        projection=str(projection),
        list_names=None if pictures.places is None else [str(place) for place in pictures.places],
    )  # fmt: skip


def thumbnails(pictures: PictureSet) -> Callable[[int], bytes | None]:
    """A function from a row to its thumbnail; None where the picture cannot be read."""

    source = pictures.source

    def pixels(row: int) -> np.ndarray:
        assert source is not None
        if source.pixels is not None:
            return source.pixels[row]
        if pictures.places is not None and isinstance(source, EncodedSource):  # faster than its graph
            return render(read_bytes(str(pictures.places[row])), source.rule)
        return source.decode(tf.constant(row, tf.int64)).numpy()

    def thumbnail(row: int) -> bytes | None:
        try:
            return None if source is None else encode_thumbnail(pixels(row))
        except (tf.errors.OpError, ValueError, OSError):
            return None

    return thumbnail


def galleries(
    pictures: PictureSet, answers: Answers, scan: Scan | None, against: PictureSet | None
) -> list[Gallery]:
    """A gallery for each answer, in the order of the page."""
    first, last = [_duplicates(answers), _clusters(answers)], []
    rows = answers.outliers.rows[:SHOWN]
    about = "Pictures far from all others: strangers, damaged ones, or rare ones worth a look."
    notes = [f"{answers.outliers.score[row]:.2f}" for row in rows]
    note = "Under each: mean distance to its nearest neighbours."
    first.append(_gallery("Outliers", f"{about} {note}", [PictureGroup(rows, notes=notes)], "outliers"))
    if answers.suspects is not None and answers.labelled is not None:
        suspects = answers.suspects
        rows = answers.labelled[suspects.rows][:SHOWN]
        notes = [f"{a} → {b}?" for a, b in zip(suspects.given, suspects.looks_like, strict=True)][:SHOWN]
        about = (
            "Pictures whose label is unlike that of their neighbours (confident learning), the least likely "
            "first."
        )
        if not suspects.labels_fit:
            share = f"{len(suspects.rows):,} of {len(answers.labelled):,} labels look wrong"
            about = f"{share}: {LABELS_DO_NOT_FIT}. {about}"
        gallery = _gallery("Suspects", about, [PictureGroup(rows, notes=notes)], "suspects")
        (first if suspects.labels_fit else last).append(gallery)
    if answers.leaks is not None and against is not None:
        leaks = answers.leaks
        notes = [
            f"{'same pixels as' if exact else f'{cosine:.3f},'} {against.names[row]}"
            for exact, cosine, row in zip(leaks.exact, leaks.cosine, leaks.source, strict=True)
        ][:SHOWN]
        about = f"Pictures that are, or nearly are, among the {len(against):,} of the other set."
        first.append(_gallery("Leaks", about, [PictureGroup(leaks.rows[:SHOWN], notes=notes)], "leaks"))
    if answers.subset is not None:
        how = {"typical": "typical ones of different groups", "k_centre": "each far from those before it"}
        about = f"Pictures to label first, in this order: {how[answers.subset.method]}. "
        about += f"Labelled already: {answers.subset.labelled:,} of {len(pictures):,}."
        first.append(_gallery("To label first", about, [PictureGroup(answers.subset.rows[:SHOWN])], "subset"))
    if scan is not None:
        first.append(_oddest(scan))
    return [gallery for gallery in first + last if gallery.groups and len(gallery.groups[0].rows)]


def _gallery(title: str, about: str, groups: list[PictureGroup], name: str) -> Gallery:
    return Gallery(title, about, groups, list_file=f"lists/{name}.csv", list_about="The list of this answer")


def _duplicates(answers: Answers) -> Gallery:
    copies, groups = answers.duplicates, []
    for number, rows in enumerate(copies.groups()[:SHOWN_GROUPS]):
        caption = f"{len(rows):,} pictures"
        if len(rows) > SHOWN_COPIES:
            caption += f", of which {SHOWN_COPIES} are shown; the table has all"
        rows, members = rows[:SHOWN_COPIES], np.flatnonzero(copies.group == number)[: SHOWN_COPIES - 1]
        notes = ["", *("same pixels" if copies.exact[i] else f"{copies.cosine[i]:.3f}" for i in members)]
        groups.append(PictureGroup(rows, caption, rows[:1], notes))
    about = (
        f"Groups of pictures with the same pixels, or a cosine of at least {copies.threshold:.3f} with the "
        "one to keep, which has the most pixels; of as many, it is a lossless file, then the largest, then "
        "the sharpest. Nothing has been removed."
    )
    return Gallery(
        "Duplicates", about + _first_groups(len(copies.kept)), groups, list_file="lists/duplicates.csv",
        list_about="All but the pictures to keep",
    )  # fmt: skip


def _clusters(answers: Answers) -> Gallery:
    clusters, groups = answers.clusters, []
    for c, size in enumerate(clusters.size[:SHOWN_GROUPS]):
        words = "; ".join(cluster_words(answers, c))
        caption = f"{c}: {counted(size, 'picture', form=',')} ({clusters.share[c]:.0%})"
        rows = clusters.central[c][clusters.central[c] >= 0]
        groups.append(PictureGroup(rows, f"{caption}, {words}" if words else caption))
    about = "Clusters of like pictures, the largest first, each by its most central ones."
    if clusters.silhouette:
        about += " Their number is a rough choice; --clusters=N takes another."
    about += _first_groups(len(clusters.size))
    return Gallery("Clusters", about, groups, list_file="lists", list_about="A list for each cluster")


def _first_groups(count: int) -> str:
    """A sentence on how many of `count` groups are shown; empty where all are."""
    if count <= SHOWN_GROUPS:
        return ""
    return f" The first {SHOWN_GROUPS} of {count:,} groups; the table has all."


def _oddest(scan: Scan) -> Gallery:
    groups = []
    for name in FIELDS:
        values = getattr(scan.statistics, name)
        rows, median = np.argsort(scan.statistics.oddness[name])[:ODDEST], f"{np.median(values):.4g}"
        notes = {row: note for row in rows if (note := f"{values[row]:.4g}") != median}
        if notes:  # else all pictures are alike
            groups.append(
                PictureGroup(list(notes), f"{name}; the median is {median}", notes=[*notes.values()])
            )
    about = "Pictures whose size, shape, brightness, contrast or sharpness is farthest from the median."
    return Gallery("Oddest", about, groups, list_file="pictures.csv", list_about="The statistics of all")
