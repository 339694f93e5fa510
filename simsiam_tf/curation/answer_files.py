"""Answers as files: tables in CSV and Parquet, lists that `data=list:` takes, and folders of links."""

from __future__ import annotations

import importlib.util
import io
import os
import posixpath
from pathlib import Path

import numpy as np

from simsiam_tf.curation.answers import Answers
from simsiam_tf.curation.picture_scan import Scan
from simsiam_tf.curation.picture_set import PictureSet
from simsiam_tf.curation.statistics import FIELDS
from simsiam_tf.data.sources.addresses import is_url
from simsiam_tf.runtime.atomic_files import atomic_file, atomic_write_text
from simsiam_tf.runtime.csv_lines import csv_writer
from simsiam_tf.runtime.display_text import as_text
from simsiam_tf.runtime.errors import UserError

Table = dict[str, np.ndarray]  # name of a column → its values, of one length
NAME_BYTES, NAME_END = 255, 16  # most bytes of a file's name, and of its end that is kept when it is cut
CENTRAL = 3  # central pictures of a cluster in its table


def answer_tables(
    pictures: PictureSet, answers: Answers, scan: Scan | None = None, against: PictureSet | None = None
) -> dict[str, Table]:
    """The tables by name. The table "pictures" has a row for each picture, the others one for each result."""
    names, copies, clusters = pictures.names, answers.duplicates, answers.clusters
    every: Table = {"name": names}
    if pictures.labels is not None:
        every["label"] = pictures.labels
    group = np.full(len(names), -1)
    for number, rows in enumerate(copies.groups()):
        group[rows] = number
    every |= {
        "cluster": clusters.cluster, "outlier_score": answers.outliers.score,
        "outlier_rank": answers.outliers.rank, "duplicate_group": group,
    }  # fmt: skip
    if scan is not None:
        every |= {name: getattr(scan.statistics, name) for name in FIELDS}
        every |= {f"{name}_oddness": scan.statistics.oddness[name] for name in FIELDS}
    tables = {"pictures": every}
    kept = copies.kept[copies.group]
    tables["duplicates"] = {
        "group": copies.group, "name": names[copies.others], "keep": names[kept],
        "cosine": copies.cosine, "exact": copies.exact,
    }  # fmt: skip
    tables["outliers"] = {
        "rank": np.arange(len(names)), "name": names[answers.outliers.rows],
        "score": answers.outliers.score[answers.outliers.rows],
    }  # fmt: skip
    words = ["; ".join(cluster_words(answers, c)) for c in range(len(clusters.size))]
    tables["clusters"] = {
        "cluster": np.arange(len(clusters.size)), "size": clusters.size, "share": clusters.share,
        "labels": np.array(words, object),
    }  # fmt: skip
    central = np.pad(clusters.central[:, :CENTRAL], ((0, 0), (0, CENTRAL)), constant_values=-1)
    for place in range(CENTRAL):  # a column for each, since names may hold commas
        rows = central[:, place]
        tables["clusters"][f"central_{place + 1}"] = np.where(rows < 0, "", names[rows])
    if answers.subset is not None:
        rows = answers.subset.rows
        tables["subset"] = {"place": np.arange(len(rows)), "name": names[rows], "score": answers.subset.score}
    if answers.suspects is not None and answers.labelled is not None:
        suspects = answers.suspects
        tables["suspects"] = {
            "name": names[answers.labelled[suspects.rows]], "label": suspects.given,
            "looks_like": suspects.looks_like, "quality": suspects.quality[suspects.rows],
        }  # fmt: skip
    if answers.leaks is not None and against is not None:
        leaks = answers.leaks
        tables["leaks"] = {
            "name": names[leaks.rows], "other": against.names[leaks.source], "cosine": leaks.cosine,
            "exact": leaks.exact,
        }  # fmt: skip
    return tables


def cluster_words(answers: Answers, cluster: int, most: int = 3) -> list[str]:
    """The commonest labels of a cluster, as "cat 83%": shares of its labelled pictures."""
    counts = np.where(answers.clusters.classes == "", 0, answers.clusters.label_counts[cluster])
    if not counts.sum():
        return []
    order = np.argsort(-counts, kind="stable")[:most]
    share = counts / counts.sum()
    return [f"{answers.clusters.classes[i]} {share[i]:.0%}" for i in order if counts[i]]


def answer_lists(pictures: PictureSet, answers: Answers, outliers: int) -> dict[str, np.ndarray]:
    """Name of a list → the rows of its pictures; "without_NAME" has all pictures that NAME lacks.

    outliers: number of pictures in the list of outliers.
    """
    everything = np.arange(len(pictures))
    lists = {"duplicates": answers.duplicates.others, "outliers": answers.outliers.rows[:outliers]}
    if answers.suspects is not None and answers.labelled is not None:
        lists["suspects"] = answers.labelled[answers.suspects.rows]
    if answers.leaks is not None:
        lists["leaks"] = answers.leaks.rows
    lists |= {f"without_{name}": np.setdiff1d(everything, rows) for name, rows in lists.items()}
    if answers.subset is not None:
        lists["subset"] = answers.subset.rows
    for cluster in range(len(answers.clusters.size)):
        lists[f"cluster_{cluster:02}"] = np.flatnonzero(answers.clusters.cluster == cluster)
    return lists


def write_table(folder: Path, name: str, table: Table) -> None:
    """Writes NAME.csv, and NAME.parquet where pyarrow is installed."""
    _write_csv(folder / f"{name}.csv", table)
    if importlib.util.find_spec("pyarrow") is None:
        return
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = {
        column: pa.array([as_text(str(v)) for v in values] if values.dtype.kind in "OU" else values)
        for column, values in table.items()
    }
    with atomic_file(folder / f"{name}.parquet") as file:
        parquet.write_table(pa.table(columns), file)


def write_list(folder: Path, name: str, pictures: PictureSet, rows: np.ndarray) -> None:
    """Writes NAME.csv, with a column "path", and "label" where pictures have labels.

    Where pictures are not files, the column is "name", and `data=list:` does not take it.
    """
    column, values = ("name", pictures.names) if pictures.places is None else ("path", pictures.places)
    table: Table = {column: values[rows]}
    if pictures.labels is not None:
        table["label"] = pictures.labels[rows]
    _write_csv(folder / f"{name}.csv", table)


def _write_csv(path: Path, table: Table) -> None:
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(table)
    writer.writerows(zip(*(values.tolist() for values in table.values()), strict=True))
    atomic_write_text(path, text.getvalue())


def link_pictures(folder: Path, pictures: PictureSet, lists: dict[str, np.ndarray]) -> int:
    """Makes FOLDER/LIST/00012_name links to the pictures of lists; returns their number.

    Pictures that are not files of this machine get none. Raises UserError where links cannot be made.
    """
    count = 0
    try:
        for name, rows in lists.items():
            if pictures.places is None or name.startswith("without_"):
                continue
            (folder / name).mkdir(parents=True, exist_ok=True)
            for place, path in enumerate(pictures.places[rows]):
                if not is_url(path):
                    (folder / name / _link_name(place, path)).symlink_to(os.path.abspath(path))
                    count += 1
    except OSError as error:
        problem = f"cannot be made ({error.strerror}); tables, lists and page are complete"
        raise UserError(f"link={folder}: {problem}. Choose another place.") from error
    return count


def _link_name(place: int, path: str) -> str:
    """The place and the file's name; a long name is cut in the middle."""
    start, name = f"{place:05}_", posixpath.basename(path)
    data, room = os.fsencode(name), NAME_BYTES - len(start)
    if len(data) > room:
        name = (data[: room - NAME_END] + data[-NAME_END:]).decode("utf-8", "ignore")
    return start + name
