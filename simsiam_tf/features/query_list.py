"""The queries that `neighbours --query=` names, and their neighbours. Only a folder loads TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simsiam_tf.config.places import list_rows
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.features.knn import nearest, nearest_others
from simsiam_tf.features.names import ArrowNames, read_text
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

ALL = "all"
FEW_NAMES = 20  # up to this number, names are looked up one by one; for more, all names are read once


@dataclasses.dataclass(frozen=True)
class Queries:
    """M images whose neighbours are asked for.

    names: of the queries, [M]. rows: int64 [M], their rows in the embeddings; −1 for an image file. files:
    number of a query → path of its image file. leave_out: whether an image among the embeddings is left out
    of its own neighbours.
    """

    names: Sequence[str] | np.ndarray | ArrowNames
    rows: np.ndarray
    files: dict[int, str] = dataclasses.field(default_factory=dict)
    leave_out: bool = True

    def stored_features(self, embeddings: Embeddings) -> np.ndarray:
        """Features [M, F] of the queries among the embeddings; memory-mapped for "all".

        The rows of queries that are files are arbitrary.
        """
        everything = self.names is embeddings.names
        return embeddings.features if everything else np.asarray(embeddings.features[self.rows])

    def take(self, numbers: np.ndarray) -> Queries:
        """Some of the queries, by ascending numbers."""
        files = {new: self.files[old] for new, old in enumerate(numbers.tolist()) if old in self.files}
        return dataclasses.replace(
            self, names=[str(self.names[i]) for i in numbers.tolist()], rows=self.rows[numbers], files=files
        )


def query_folder(embeddings: Embeddings, query: str) -> str | None:
    """The folder that a query names, as "folder:PATH" or PATH; None for another query."""
    if query.startswith("folder:"):
        return query.removeprefix("folder:")
    is_folder = os.path.isdir(os.path.expanduser(query)) and embeddings.row(query) is None
    return query if is_folder else None


def find_queries(embeddings: Embeddings, query: str) -> Queries:
    """The queries that the option `query` names.

    query: the first of these that fits:
        a name among the embeddings;
        "all": every image of the embeddings;
        "list:FILE": a file with a name among the embeddings or the path of an image file on each line, or in
            the column "path" of a CSV file. Paths are relative to the folder of FILE;
        "folder:PATH" or PATH: the images in a folder;
        the path of an image file.

    Raises:
        UserError: `query` names nothing, or a list names nothing or what does not exist.
    """
    row, count = embeddings.row(query), len(embeddings.names)
    if row is not None:
        return Queries([query], np.array([row]), leave_out=False)
    folder, path = query_folder(embeddings, query), os.path.expanduser(query)
    if query == ALL:
        return Queries(embeddings.names, np.arange(count))
    if query.startswith("list:"):
        return _listed_queries(embeddings, query)
    if folder is not None:
        from simsiam_tf.data.sources.folder import folder_members

        names = folder_members(folder).names
        files = {i: os.path.join(os.path.expanduser(folder), name) for i, name in enumerate(names)}
        return Queries(names, np.full(len(names), -1), files)
    if os.path.isfile(path):
        return Queries([query], np.array([-1]), {0: path}, leave_out=False)
    raise UserError(
        f"query={printable_text(query)}: neither a file nor a name among the embeddings, nor list:FILE, a "
        f"folder or {ALL}."
    )


def _listed_queries(embeddings: Embeddings, query: str) -> Queries:
    file = Path(query.removeprefix("list:")).expanduser()
    text = read_text(file, f"query={printable_text(query)}")
    names = [row["path"] for row in list_rows(text)]
    if not names:
        raise UserError(f"query={printable_text(query)}: names no image.")
    rows, files, missing = np.full(len(names), -1), {}, []
    row_of = _rows_by_name(embeddings, names)
    for i, name in enumerate(names):
        row = row_of.get(name)
        path = os.path.join(file.parent, os.path.expanduser(name))
        if row is not None:
            rows[i] = row
        elif os.path.isfile(path):
            files[i] = path
        else:
            missing.append(name)
    if missing:
        raise UserError(
            f"query={printable_text(query)}: {len(missing)} of {len(names)} are neither names among the "
            f"embeddings nor files, such as {printable_text(missing[0])}."
        )
    return Queries(names, rows, files)


def _rows_by_name(embeddings: Embeddings, names: list[str]) -> dict[str, int | None]:
    """Name → its row in the embeddings; None, or no entry, for a name that they lack."""
    if len(names) <= FEW_NAMES or any("\\" in name for name in names):
        return {name: embeddings.row(name) for name in names}
    wanted, row_of = set(names), {}
    for i, name in enumerate(map(str, embeddings.names)):
        if name in wanted:
            row_of.setdefault(name, i)
    return row_of


def find_neighbours(
    embeddings: Embeddings, queries: Queries, features: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(cosines float32 [M, k], rows of the embeddings int64 [M, k]), the nearest first.

    The embeddings are read once for all queries. features: [M, F], of the queries. k: at most N. A cosine of
    −inf and a row of −1 stand where there is no further neighbour, and for a query whose features are all 0,
    to which no image is near; a line on stderr counts these.
    """
    if queries.leave_out and (queries.rows >= 0).any():
        cosines, rows = nearest_others(embeddings.features, features, queries.rows, k)
    else:
        cosines, rows = nearest(embeddings.features, features, k)
    zero = np.flatnonzero(cosines[:, 0] == 0)
    zero = zero[~np.asarray(features[zero]).any(axis=1)]
    if len(zero):
        cosines[zero], rows[zero] = -np.inf, -1
        such = printable_text(str(queries.names[int(zero[0])]))
        count = counted(len(zero), "query", "queries", ",")
        print(f"no neighbours of {count} whose features are all 0, such as {such}", file=sys.stderr)
    return cosines, rows
