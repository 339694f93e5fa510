"""The queries that `neighbours --query=` names, and their neighbours. Loads TensorFlow for a folder alone."""

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
from simsiam_tf.features.names import ArrowNames
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

ALL = "all"
FEW = 20  # names that are looked up one after the other; of more, all names are read once


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

    def known_features(self, embeddings: Embeddings) -> np.ndarray:
        """Features [M, F] of the queries, of which those of files are arbitrary; memory-mapped for "all"."""
        everything = self.names is embeddings.names
        return embeddings.features if everything else np.asarray(embeddings.features[self.rows])

    def chosen(self, numbers: np.ndarray) -> Queries:
        """The queries of these numbers, ascending."""
        files = {new: self.files[old] for new, old in enumerate(numbers.tolist()) if old in self.files}
        return dataclasses.replace(
            self, names=[str(self.names[i]) for i in numbers.tolist()], rows=self.rows[numbers], files=files
        )


def folder_of(embeddings: Embeddings, query: str) -> str | None:
    """The folder that a query names, as "folder:PATH" or PATH; None for another query."""
    if query.startswith("folder:"):
        return query.removeprefix("folder:")
    is_folder = os.path.isdir(os.path.expanduser(query)) and embeddings.row(query) is None
    return query if is_folder else None


def find_queries(embeddings: Embeddings, query: str) -> Queries:
    """The queries that a text names.

    A name among the embeddings comes first; then "all", every image of the embeddings; "list:FILE", a name
    among the embeddings or the path of an image file a line (or in the column "path" of a CSV file);
    "folder:PATH" or PATH, the images in a folder; the path of an image file. A path in a list is relative to
    the folder of the list.

    Raises:
        UserError: `query` names nothing, or a list names nothing or what does not exist.
    """
    row, count = embeddings.row(query), len(embeddings.names)
    if row is not None:
        return Queries([query], np.array([row]), leave_out=False)
    folder, path = folder_of(embeddings, query), os.path.expanduser(query)
    if query == ALL:
        return Queries(embeddings.names, np.arange(count))
    if query.startswith("list:"):
        return _listed(embeddings, query)
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


def _listed(embeddings: Embeddings, query: str) -> Queries:
    file = Path(query.removeprefix("list:")).expanduser()
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"query={printable_text(query)}: cannot be read ({error.strerror}).") from error
    names = [row["path"] for row in list_rows(text)]
    if not names:
        raise UserError(f"query={printable_text(query)}: names no image.")
    rows, files, missing = np.full(len(names), -1), {}, []
    row_of = _rows_of(embeddings, names)
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


def _rows_of(embeddings: Embeddings, names: list[str]) -> dict[str, int | None]:
    """Name → its row, of those names that the embeddings have."""
    if len(names) <= FEW or any("\\" in name for name in names):
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
