"""A few rows that stand for all, in the order to label them."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np

from simsiam_tf.curation import k_means
from simsiam_tf.curation.distinct_neighbours import distinct_neighbours
from simsiam_tf.curation.duplicates import Duplicates
from simsiam_tf.curation.exact_search import nearest_rows
from simsiam_tf.curation.neighbour_graph import NeighbourGraph, graph_of, neighbour_graph
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows, check_count
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError

POOL = 2**15  # rows farthest from all chosen ones, among which the next are sought
MOST_CLUSTERS, LEAST_SIZE = 500, 5  # of Hacohen et al.
METHODS = ("auto", "k_centre", "typical")


@dataclasses.dataclass(frozen=True)
class Subset:
    """Rows in the order to label them.

    method: "k_centre" or "typical". rows: int64 [n]. score: float32 [n]. With "k_centre": 1 − cosine with the
    nearest row that was labelled or chosen before, in [0, 2], infinite for the first of all. With "typical":
    mean cosine of the row's nearest others. labelled: number of rows that were labelled before.
    """

    rows: np.ndarray
    score: np.ndarray
    method: str = "k_centre"
    labelled: int = 0


def few_labels(labels: int, rows: int) -> bool:
    """Whether a budget of labels is low, so that typical rows teach most.

    Typical rows suit low budgets, and rows unlike the others high ones (Hacohen et al. 2022, arXiv
    2202.02794). The paper names no number between them. Here a budget is low while each label has a cluster
    of its own: up to 500, the most that the paper's code makes, and a fifth of the rows, since clusters of
    fewer than 5 come last.

    labels: known and wanted ones together. rows: of the set.
    """
    return labels <= min(MOST_CLUSTERS, rows // LEAST_SIZE)


def subset(
    features: np.ndarray | UnitRows,
    count: int,
    have: Sequence[int] | np.ndarray = (),
    method: str = "auto",
    graph: NeighbourGraph | None = None,
    seed: int = 0,
    copies: Duplicates | None = None,
) -> Subset:
    """`count` rows to label first.

    "k_centre" covers all rows: each choice is farthest from those before it (k-centre greedy, Sener and
    Savarese 2018). The second and the next ones are often outliers; leave these out before. "typical" takes
    typical rows of the clusters with the fewest labels, of these from the largest (TypiClust, Hacohen et al.
    2022); it is better for few labels. "auto" decides between them by `few_labels`.

    Args:
        features: [N, F], may be memory-mapped.
        count: rows to choose, at most those that are not in `have`.
        have: row numbers that are labelled already.
        graph: of `neighbour_graph`, or of `distinct_neighbours` where there are copies, for "typical"; made
            when None.
        seed: seed of the clusters.
        copies: of `duplicates`; of each group, only the kept row is chosen, and none where another one is
            labelled. The others come last, where `count` asks for more.
    """
    check_count(count, 1, "count")
    if method not in METHODS:
        raise UserError(f"method={method}: is unknown. Choose from {', '.join(METHODS)}.")
    rows = as_unit_rows(features)
    labelled = np.unique(np.asarray(have if len(have) else np.empty(0, np.int64)))
    inside = labelled.dtype.kind in "iu" and ((labelled >= 0) & (labelled < len(rows))).all()
    if not inside:
        raise UserError(f"`have`: must be row numbers from 0 to {len(rows) - 1}.")
    if count > len(rows) - len(labelled):
        raise UserError(
            f"count={count}: is more than the rows that are left, {len(rows) - len(labelled)}. Pass fewer."
        )
    everything = np.arange(len(rows))
    stands = everything if copies is None else copies.stands_for(len(rows))
    left_out = stands != everything
    known = np.unique(stands[labelled])
    if method == "auto":
        few = few_labels(len(known) + count, len(rows) - int(left_out.sum()))
        method = "typical" if few else "k_centre"
    if method == "typical" and graph is None:
        graph = neighbour_graph(rows)
        graph = graph if copies is None else distinct_neighbours(rows, graph, copies)
    left_out[known] = left_out[labelled] = True
    chosen, score = labelled, []
    for skipped in (left_out, np.isin(everything, labelled)):  # copies come last
        skipped[chosen] = True
        more = min(count - len(chosen) + len(labelled), len(rows) - int(skipped.sum()))
        if not more:
            continue
        if method == "k_centre":
            new = _k_centre(rows, more, chosen, skipped)
        else:
            new = _typical(rows, more, chosen, skipped, stands, graph_of(rows, graph), seed)
        chosen, score = np.append(chosen, new.rows), np.append(score, new.score)
    return Subset(chosen[len(labelled) :], np.asarray(score, np.float32), method, len(labelled))


def _k_centre(rows: UnitRows, count: int, labelled: np.ndarray, skipped: np.ndarray) -> Subset:
    """The same rows as computing all distances anew for each choice, in far fewer passes over the features.

    skipped: bool [N], rows that are not chosen.

    A choice can only shorten distances. Distances of a pool of the farthest rows are kept up to date; while
    the farthest of these is farther than any other row was at the last pass, it is the farthest of all.
    """
    from threadpoolctl import threadpool_limits  # of scikit-learn

    distance = np.where(skipped, -np.inf, np.inf).astype(np.float32)  # as of the last pass
    chosen, score = list(labelled), []
    new = labelled
    if not len(labelled):
        mean = np.sum([x.sum(axis=0, dtype=np.float64) for _, x in rows.blocks()], axis=0)
        product = np.concatenate([x @ mean for _, x in rows.blocks()])
        first = np.where(skipped, -np.inf, product).argmax()
        chosen, score, new = [first], [np.inf], np.array([first])
    bar = progress.bar(None, "subset", total=count, initial=len(score), unit="row", leave=False)
    while len(score) < count:
        np.minimum(distance, 1 - nearest_rows(rows.take(new), rows, 1)[0][:, 0], out=distance)
        distance[chosen] = -np.inf
        order = np.argsort(-distance, kind="stable")
        pool = np.sort(order[:POOL])
        beyond = distance[order[POOL]] if len(order) > POOL else -np.inf
        features, near = rows[pool], distance[pool]
        picks: list[int] = []  # in the pool
        with threadpool_limits(1):  # which memory keeps busy; more wait for each other at every choice
            while len(score) < count:
                best = int(near.argmax())
                if picks and near[best] <= beyond:
                    break
                picks.append(best)
                score.append(near[best])
                np.minimum(near, 1 - features @ features[best], out=near)
                near[best] = -np.inf
                bar.update()
        new = pool[picks]
        chosen += list(new)
    bar.close()
    return Subset(np.array(chosen[len(labelled) :], np.int64), np.array(score, np.float32))


def _typical(
    rows: UnitRows, count: int, labelled: np.ndarray, skipped: np.ndarray, stands: np.ndarray,
    graph: NeighbourGraph, seed: int,
) -> Subset:  # fmt: skip
    """TypiClust: of the clusters with the fewest labels the largest one gives its most typical row.

    skipped: bool [N], rows that are not chosen. stands: `Duplicates.stands_for`; a group counts as one row.

    NOTE: a row's typicality is that among its nearest of all rows, not of its cluster alone as in the paper,
    so that the graph serves all answers.
    """
    known, distinct = np.unique(stands[labelled]), np.flatnonzero(stands == np.arange(len(rows)))
    clusters = max(1, min(len(known) + count, MOST_CLUSTERS, len(distinct) // LEAST_SIZE))
    cluster, _ = k_means.assign(rows, k_means.fit_centres(rows, clusters, seed))
    typicality = graph.cosine.mean(axis=1)
    size = np.bincount(cluster[distinct], minlength=clusters)
    labels = np.bincount(cluster[known], minlength=clusters)
    order = np.lexsort((-typicality, cluster))
    order = order[~skipped[order]]
    members = np.split(order, np.searchsorted(cluster[order], np.arange(1, clusters)))
    taken = [0] * clusters
    # Clusters of fewer than LEAST_SIZE rows come last.
    queue = [(size[c] < LEAST_SIZE, labels[c], -size[c], c) for c in range(clusters) if len(members[c])]
    heapq.heapify(queue)
    chosen = []
    while len(chosen) < count:
        small, with_label, minus_size, c = queue[0]
        chosen.append(members[c][taken[c]])
        taken[c] += 1
        if taken[c] < len(members[c]):
            heapq.heapreplace(queue, (small, with_label + 1, minus_size, c))
        else:
            heapq.heappop(queue)
    return Subset(np.array(chosen, np.int64), typicality[chosen], "typical")
