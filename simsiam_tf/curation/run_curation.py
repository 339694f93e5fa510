"""The command `curate`: opens the pictures, answers, and writes tables, lists and the page."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.config.places import list_rows
from simsiam_tf.curation.answer_files import (
    answer_lists,
    answer_tables,
    link_pictures,
    write_list,
    write_table,
)
from simsiam_tf.curation.answers import Answers, Question, answer
from simsiam_tf.curation.neighbour_graph import check_faiss
from simsiam_tf.curation.output_folder import CACHE, PAGE, PAGE_TABLE, SUMMARY, remove_earlier
from simsiam_tf.curation.page_content import page_content
from simsiam_tf.curation.picture_scan import Scan, scan_pictures
from simsiam_tf.curation.picture_set import (
    PictureSet,
    open_pictures,
    open_recorded,
    picture_set,
    recorded_pixels,
)
from simsiam_tf.curation.suspects import LABELS_DO_NOT_FIT
from simsiam_tf.curation_page import table
from simsiam_tf.curation_page.page import write_page
from simsiam_tf.curation_page.projection import project
from simsiam_tf.data import Source
from simsiam_tf.distributed import strategies
from simsiam_tf.evaluate import cached_scores
from simsiam_tf.features import embedding_file, image_embeddings
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.names import read_text
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

METHODS_IN_WORDS = {  # method of the subset → in words, with the reason
    "typical": "typical ones of different groups, by which few labels teach most (--subset_by=typical)",
    "k_centre": "far from each other, by which many labels cover all kinds (--subset_by=k_centre)",
}
BACKBONE = ("sha256", "size", "mean", "std")  # entries of `Embeddings.about` that two sets must share


def curate(config: Any, out: Path) -> str:
    """Writes all answers for a `CurateConfig` into the folder `out`; returns the summary.

    Call `output_folder.check_output` before.

    Raises:
        UserError: the pictures, their features or an option do not fit, or the folder cannot be written.
    """
    pictures, pretrained = _open_pictures(config)
    check_faiss(len(pictures), len(pictures))  # before anything that takes long
    have = _named_rows(config.have, pictures) if config.have else _labelled_rows(pictures)
    if config.subset > len(pictures) - len(have):
        given = f", and {len(have):,} of them are labelled" if len(have) else ""
        raise UserError(f"subset={config.subset}: there are only {len(pictures):,} pictures{given}.")
    if config.clusters is not None and config.clusters > len(pictures):
        raise UserError(f"clusters={config.clusters}: there are only {len(pictures):,} pictures. Pass fewer.")
    against = _open_against(config, pretrained) if config.against else None
    if against is not None:
        _check_comparable(config.against, against, pictures)
        check_faiss(len(against), len(pictures))
    _ = pictures.rows  # checked before the pictures are read
    try:
        (out / CACHE).mkdir(parents=True, exist_ok=True)
        kept, scan = _scan(pictures.source, out / CACHE, config.on_bad_image, len(pictures))
        pictures, have = pictures.take(kept), np.flatnonzero(np.isin(kept, have))
        against_scan = None
        if against is not None:
            others, against_scan = _scan(against.source, out / CACHE, config.on_bad_image, len(against))
            against = against.take(others)
        question = Question(
            config.neighbours, config.duplicate_cosine, config.clusters, config.hdbscan,
            min(config.subset, len(pictures) - len(have)), config.subset_by, have, config.seed,
        )  # fmt: skip
        answers = answer(pictures, question, scan, against, against_scan)
        lists = answer_lists(pictures, answers, config.outliers)
        remove_earlier(out)
        for name, columns in answer_tables(pictures, answers, scan, against).items():
            write_table(out, name, columns)
        (out / "lists").mkdir(exist_ok=True)
        for name, rows in lists.items():
            write_list(out / "lists", name, pictures, rows)
        if config.page:
            projection = project(pictures.features, config.map, config.map_sample, config.seed)
            content = page_content(pictures, answers, scan, against, projection)
            write_page(content, out / PAGE, seed=config.seed)
            if importlib.util.find_spec("pyarrow"):
                table.write_table(content, out / PAGE_TABLE)
        text = summary(out, pictures, answers, scan, against)
        if config.link:
            links = link_pictures(Path(config.link).expanduser(), pictures, lists)
            text += f"\n{config.link}: {counted(links, 'link', form=',')} to pictures"
        atomic_write_text(out / SUMMARY, text + "\n")
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror}). Choose another place.") from error
    return text


def _scan(
    source: Source | None, folder: Path, on_bad_image: str, count: int
) -> tuple[np.ndarray, Scan | None]:
    """(rows of the pictures that can still be read, their scan); the scan is None without a source.

    Pictures that changed or disappeared meanwhile are named on stderr, or raise for on_bad_image=error.
    """
    kept = np.arange(count)
    while source is not None:
        try:
            return kept, scan_pictures(source, folder)
        except ChangedImages as error:
            if on_bad_image != "skip":
                raise
            image_embeddings.report_left_out(source, error.names)
            kept, source = kept[error.rest_ids], error.rest
    return kept, None


def _open_pictures(config: Any) -> tuple[PictureSet, Pretrained | None]:
    if config.embeddings:
        embeddings = embedding_file.read_embeddings(
            Path(config.embeddings).expanduser(), config.features_column, config.names_column, config.names
        )
        options = config.source_options()
        if config.data:
            source = open_pictures(config.data, **{**recorded_pixels(embeddings.about), **options})
        else:
            source = open_recorded(embeddings.about, **options)
        return picture_set(embeddings, source), None
    strategies.set_precision("auto" if config.fast else "float32")
    pretrained = open_pretrained(config.weights, **config.preprocessing())
    data = config.data or cached_scores.training_data(pretrained)
    source = open_pictures(data, **pretrained.source_options(config, data))
    return picture_set(_embed(config, pretrained, source), source), pretrained


def _embed(config: Any, pretrained: Pretrained, source: Source) -> embedding_file.Embeddings:
    folder = Path(config.features_dir).expanduser() if config.features_dir else None
    return image_embeddings.embed(
        pretrained, source, folder, config.batch_size, config.on_bad_image, fast=config.fast
    )


def _open_against(config: Any, pretrained: Pretrained | None) -> PictureSet:
    """The other set: a file of features, or a place of images for the same backbone."""
    file = Path(config.against).expanduser()
    if file.exists():
        has_columns = file.is_file() and file.suffix != ".npy"
        columns = (config.features_column, config.names_column) if has_columns else ()
        embeddings = embedding_file.read_embeddings(file, *columns, option="against")
        return picture_set(embeddings, open_recorded(embeddings.about))
    if pretrained is None:
        raise UserError(
            f"against={config.against}: needs the backbone. Pass `weights` instead of `embeddings`, or the "
            "file of that set's embeddings, as in against=train.npz."
        )
    source = open_pictures(config.against, **pretrained.source_options(config, config.against))
    return picture_set(_embed(config, pretrained, source), source)


def _check_comparable(shown: str, against: PictureSet, pictures: PictureSet) -> None:
    """Raises UserError where the other set is of another backbone, or has a row of zeros."""
    records = pictures.about, against.about
    unlike = [key for key in BACKBONE if len({str(about.get(key)) for about in records if key in about}) > 1]
    width, expected = (part.features.shape[1] for part in (against, pictures))
    if width != expected:
        unlike = [f"{width} and {expected} features a picture"]
    if unlike:
        raise UserError(
            f"against={shown}: its features are not of the backbone and preprocessing of the set's, by "
            f"their {', '.join(unlike)}. Embed both by the same backbone."
        )
    try:
        _ = against.rows
    except UserError as error:
        raise UserError(f"against={shown}: {error}") from error


def _labelled_rows(pictures: PictureSet) -> np.ndarray:
    """The rows of the pictures with a label, where others have none."""
    labelled = np.zeros(len(pictures), bool) if pictures.labels is None else pictures.labels != ""
    return np.flatnonzero(labelled & ~labelled.all())


def _named_rows(file: str, pictures: PictureSet) -> np.ndarray:
    """The rows of the pictures that a list names, by name or by path; none for an empty list.

    A line on stderr counts the names that no picture has.

    Raises:
        UserError: the list cannot be read, or no picture has any of its names.
    """
    # Lists that `curate` wrote may have a column "name" instead of "path".
    text = re.sub(r"\Aname(?=[,\r\n])", "path", read_text(file, f"have={file}"))
    named = {row["path"]: False for row in list_rows(text)}  # name → whether a picture has it
    has_label = np.zeros(len(pictures), bool)
    for column in (pictures.names, () if pictures.places is None else pictures.places):
        for row, name in enumerate(map(str, column)):
            if name in named:
                named[name] = has_label[row] = True
    unknown = [name for name, is_known in named.items() if not is_known]
    such = printable_text(unknown[0]) if unknown else ""
    if unknown and not has_label.any():
        raise UserError(f"have={file}: names none of the pictures, but {such}. Pass their names or paths.")
    if unknown:
        count = f"{len(unknown):,} of its {len(named):,} names"
        print(f"--have={file}: {count} are of no picture, such as {such}", file=sys.stderr)
    return np.flatnonzero(has_label)


def summary(
    out: Path, pictures: PictureSet, answers: Answers, scan: Scan | None, against: PictureSet | None
) -> str:
    """The summary that `curate` prints and writes into summary.txt."""
    copies, clusters = answers.duplicates, answers.clusters
    copied = counted(len(copies.kept), "picture", form=",")
    exact = f", {copies.exact.sum():,} with equal pixels" if scan is not None else ""
    sizes = (
        f", of {clusters.size.min():,} to {counted(clusters.size.max(), 'picture', form=',')}"
        if len(clusters.size)
        else ""
    )
    rough = "; their number is a rough choice" if clusters.silhouette else ""
    lines = [
        f"{out}: {counted(len(pictures), 'picture', form=',')}",
        f"  duplicates  {counted(len(copies.others), 'copy', 'copies', form=',')} of {copied} "
        f"(cosine of at least {copies.threshold:.3f}){exact}",
        f"  outliers    {printable_text(str(pictures.names[answers.outliers.rows[0]]))} first",
        f"  clusters    {len(clusters.size)}{sizes}{rough}",
    ]
    if answers.suspects is not None and answers.labelled is not None:
        count = len(answers.suspects.rows)
        look = "looks" if count == 1 else "look"
        doubt = "" if answers.suspects.labels_fit else f": {LABELS_DO_NOT_FIT}"
        lines.append(f"  suspects    {count:,} of {len(answers.labelled):,} labels {look} wrong{doubt}")
    if answers.leaks is not None and against is not None:
        lines.append(
            f"  leaks       {len(answers.leaks.rows):,} found among the {len(against):,} others, too"
        )
    if answers.subset is not None:
        labelled = f"labelled already: {answers.subset.labelled:,} of {len(pictures):,}"
        method = METHODS_IN_WORDS[answers.subset.method]
        lines.append(f"  subset      {len(answers.subset.rows):,} to label first: {method}; {labelled}")
    if pictures.source is None:
        lines.append("  The pictures themselves could not be read: no statistics. Pass --data.")
    if answers.graph.recall < 1:
        lines.append(f"  Neighbours are {answers.graph.recall:.1%} of the true ones, on a sample.")
    if (out / PAGE).exists():
        lines.append(f"{out / PAGE}: opens in any browser")
    if pictures.places is None:
        lines.append(f"{out / 'lists'}: lists of names, since the pictures are not files of one place")
    else:
        lines.append(f"lists, as in --data=list:{out / 'lists' / 'without_duplicates.csv'}")
    return "\n".join(lines)
