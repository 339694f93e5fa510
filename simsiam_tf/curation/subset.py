"""Chooses the rows to label first."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np

from simsiam_tf.curation import k_means
from simsiam_tf.curation.distinct_neighbours import distinct_neighbours
from simsiam_tf.curation.duplicates import Duplicates
from simsiam_tf.curation.exact_search import nearest_rows
from simsiam_tf.curation.neighbour_graph import NeighbourGraph, ensure_graph, neighbour_graph
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows, check_count
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError

POOL = 2**15  # rows farthest from all chosen ones, among which the next are sought
MAX_CLUSTERS, MIN_SIZE = 500, 5  # most clusters, and fewest rows of one, of Hacohen et al.
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
    return labels <= min(MAX_CLUSTERS, rows // MIN_SIZE)


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
        graph: for "typical": result of `neighbour_graph` or, with `copies`, of `distinct_neighbours`; made
            when None.
        seed: seed of the clusters.
        copies: result of `duplicates`. Of each group only the kept row is chosen, and no row if one of them
            is labelled. The other rows come last, if `count` asks for more.

    Raises:
        UserError: features as in `UnitRows`; an unknown method; `have` has other numbers than those of rows;
            or `count` is below 1 or above the number of rows that are left.
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
            new = _typical(rows, more, chosen, skipped, stands, ensure_graph(rows, graph), seed)
        chosen, score = np.append(chosen, new.rows), np.append(score, new.score)
    return Subset(chosen[len(labelled) :], np.asarray(score, np.float32), method, len(labelled))


def _k_centre(rows: UnitRows, count: int, labelled: np.ndarray, skipped: np.ndarray) -> Subset:
    """k-centre greedy, in far fewer passes over the features than one for each choice.

    A choice can only shorten distances. Distances of a pool of the farthest rows are kept up to date; while
    the farthest of these is farther than any other row was at the last pass, it is the farthest of all.

    skipped: bool [N], rows that are not chosen.
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
        with threadpool_limits(1):  # memory limits the speed; more threads wait for each other at each choice
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
    """TypiClust: takes the most typical row of the largest of the clusters with the fewest labels, each time.

    skipped: bool [N], rows that are not chosen. stands: `Duplicates.stands_for`; a group counts as one row.

    NOTE: typicality is measured among a row's nearest of all rows, not of its cluster alone as in the paper,
    so that one graph serves all answers.
    """
    known, distinct = np.unique(stands[labelled]), np.flatnonzero(stands == np.arange(len(rows)))
    clusters = max(1, min(len(known) + count, MAX_CLUSTERS, len(distinct) // MIN_SIZE))
    cluster, _ = k_means.assign(rows, k_means.fit_centres(rows, clusters, seed))
    typicality = graph.cosine.mean(axis=1)
    size = np.bincount(cluster[distinct], minlength=clusters)
    labels = np.bincount(cluster[known], minlength=clusters)
    order = np.lexsort((-typicality, cluster))
    order = order[~skipped[order]]
    members = np.split(order, np.searchsorted(cluster[order], np.arange(1, clusters)))
    taken = [0] * clusters
    # Clusters of fewer than MIN_SIZE rows come last.
    queue = [(size[c] < MIN_SIZE, labels[c], -size[c], c) for c in range(clusters) if len(members[c])]
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
