"""The nearest others of each row by cosine, searched once for several answers."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.curation.exact_search import nearest_rows
from simsiam_tf.curation.faiss_search import import_faiss, nearest_rows_ivf
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows, check_count
from simsiam_tf.features.knn import has_gpu
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

K = 20  # number of neighbours
EXACT_ROWS = 200_000  # most rows for which search="auto" compares all pairs on a CPU
SEARCHES = ("auto", "exact", "faiss")


@dataclasses.dataclass(frozen=True)
class NeighbourGraph:
    """The k nearest neighbours of each row, the nearest first.

    cosine: float32 [N, k]. index: int64 [N, k], rows of a bank, or of the same set, where no row is its own
    neighbour. recall: share in [0, 1] of the true k nearest in the graph, on a sample; 1 for an exact search.
    """

    cosine: np.ndarray
    index: np.ndarray
    recall: float = 1.0

    @property
    def k(self) -> int:
        """Number of neighbours of each row."""
        return self.index.shape[1]


def neighbour_graph(features: np.ndarray | UnitRows, k: int = K, search: str = "auto") -> NeighbourGraph:
    """The k nearest others of each row by cosine; a row is not its own neighbour, a copy of it may be.

    Args:
        features: [N, F], may be memory-mapped; read in blocks.
        k: neighbours, cut to N − 1.
        search: "exact" compares all pairs (`features.nearest`). "faiss" searches an inverted file and needs
            the extra faiss. "auto" takes "exact" up to `EXACT_ROWS` rows, and wherever TensorFlow is loaded
            and has a GPU; else "faiss".

    Raises:
        UserError: features as in `UnitRows`, or an unknown search.
    """
    rows = as_unit_rows(features)
    return _search(rows, rows, k, search, np.arange(len(rows)))


def cross_neighbours(
    bank: np.ndarray | UnitRows, queries: np.ndarray | UnitRows, k: int = K, search: str = "auto"
) -> NeighbourGraph:
    """The k nearest rows of a bank [N, F] for each query [M, F]; k and search as for `neighbour_graph`.

    Raises:
        UserError: as `neighbour_graph`, or the bank and the queries have different widths.
    """
    bank, queries = as_unit_rows(bank, "bank"), as_unit_rows(queries, "queries")
    if bank.width != queries.width:
        raise UserError(
            f"`bank`, `queries`: have {bank.width} and {queries.width} features a row. "
            "Embed both by the same backbone."
        )
    return _search(bank, queries, k, search, None)


def _search(
    bank: UnitRows, queries: UnitRows, k: int, search: str, query_rows: np.ndarray | None
) -> NeighbourGraph:
    check_count(k, 1, "k")
    if search not in SEARCHES:
        raise UserError(f"search={search}: is unknown. Choose from {', '.join(SEARCHES)}.")
    k = min(k, len(bank) - (query_rows is not None))
    if search == "auto":
        search = "faiss" if needs_faiss(len(bank), len(queries)) else "exact"
    if search == "faiss":
        return NeighbourGraph(*nearest_rows_ivf(bank, queries, k, query_rows))
    return NeighbourGraph(*nearest_rows(bank, queries, k, query_rows))


def needs_faiss(bank: int, queries: int) -> bool:
    """Whether search="auto" takes faiss for these numbers of rows."""
    return bank * queries > EXACT_ROWS**2 and not has_gpu()


def check_faiss(bank: int, queries: int) -> None:
    """Raises UserError where faiss is needed for these numbers of rows, and not installed."""
    if needs_faiss(bank, queries):
        import_faiss()


def ensure_graph(features: np.ndarray | UnitRows | None, graph: NeighbourGraph | None) -> NeighbourGraph:
    """The graph, made from the features when None.

    Raises:
        UserError: both are None, or they have different numbers of rows.
    """
    if graph is None:
        if features is None:
            raise UserError("`features`, `graph`: both are missing. Pass one.")
        return neighbour_graph(features)
    if features is not None and len(features) != len(graph.index):
        raise UserError(
            f"`graph`: has {counted(len(graph.index), 'row')}, the features have {len(features)}. "
            "Pass the graph of these features."
        )
    return graph
