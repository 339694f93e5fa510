"""The least cosine of near-duplicates, chosen from the distances of nearest neighbours."""

from __future__ import annotations

import numpy as np

from simsiam_tf.runtime.errors import UserError

ROUNDING = 2e-6  # 1 − cosine of equal pictures, in float32
MIN_NEIGHBOURS = 6  # fewer neighbours say nothing about the surroundings of a row
QUANTILE = 0.75  # quantile of rows that is taken for a row without duplicates
MAX_DIMENSION = 32.0
LENIENCE = 1.5  # the dimension around a row, from 20 neighbours, has a standard deviation of some 30 %
FARTHEST = 0.2  # largest distance of duplicates, relative to that of rows without duplicates
COST = 4  # a row without duplicates above the threshold weighs as much as this number of rows with


def duplicate_cosine(cosine: np.ndarray) -> float:
    """The least cosine at which two rows are near-duplicates, in (0, 1).

    One cosine for all sets would not do: different pictures of a narrow class (trousers) may be nearer to
    each other than copies in a varied set. So a row counts as having a duplicate where its nearest neighbour
    is far nearer than its surroundings. Let d be 1 − cosine with the nearest and D with the k-th neighbour.
    The row counts if d / D is so small that at most 1 of N rows without duplicates would have it. Neighbours
    of such rows are modelled as spread evenly in m dimensions; then (d / D)^m is Beta(1, k − 1), and
    P(d / D < r) ≤ (k − 1) r^m (the Poisson model of Levina and Bickel 2004). m follows from the 0.75 quantile
    of d / D over all rows, which hardly moves even if half of the rows are copies. For one row, a lower m may
    follow from the distance of its neighbour number k / 2, as along a video.

    The threshold maximises the number of rows with a duplicate above it, less `COST` times the number of
    rows without. It lies (geometrically) half-way to the next nearest distance, since re-encoded copies of a
    picture differ by unequal distances. Without duplicates only equal features are above it. And
    1 − threshold is at most `FARTHEST` times the 0.75 quantile of the distances to the nearest: variants of
    one drawing, such as icons of a family, are farther from each other than that.

    More than k / 2 copies of one picture are each other's surroundings: then only equal ones count, not near
    ones. For such sets, pass a cosine to `duplicates` instead.

    Args:
        cosine: [N, k], of the k nearest others of each row, the nearest first.
    """
    d = np.maximum(1.0 - np.asarray(cosine, np.float64), ROUNDING)
    rows, k = d.shape
    nearest, last, middle = d[:, 0], d[:, -1], d[:, k // 2 - 1]
    duplicate = nearest <= ROUNDING
    spread = last > ROUNDING  # rows whose k neighbours are not all copies
    if k >= MIN_NEIGHBOURS and spread.any():
        ratio = np.log(nearest / last)
        typical = np.quantile(ratio[spread], QUANTILE)
        dimension = np.log1p(-((1 - QUANTILE) ** (1 / (k - 1)))) / min(typical, -1e-9)
        with np.errstate(divide="ignore"):
            around = np.log(2) / np.log(last / middle)  # (middle / last)^m is about Beta(k/2, k/2)
        m = np.minimum(np.minimum(LENIENCE * around, dimension), MAX_DIMENSION)
        duplicate |= spread & (m * ratio + np.log(k - 1) < -np.log(rows))
    order = np.argsort(nearest, kind="stable")
    # Duplicates come at least in pairs, so that a single row may be due to chance.
    score = np.cumsum(np.where(duplicate[order], 1, -COST))
    ends = np.append(np.flatnonzero(np.diff(nearest[order])), rows - 1)  # equal distances stay together
    best = ends[score[ends].argmax()]
    if score[best] < 2:
        return 1.0 - ROUNDING
    threshold, further = nearest[order[best]], nearest[order[best + 1 :]]
    half_way = np.sqrt(threshold * further[0]) if len(further) else threshold
    alone = nearest[nearest > ROUNDING]
    farthest = FARTHEST * np.quantile(alone, QUANTILE) if len(alone) else ROUNDING
    return float(1.0 - max(min(half_way, farthest), ROUNDING))


def check_cosine(cosine: float | None) -> float | None:
    """The option's least cosine, at most that of equal rows in float32; None stays None.

    Raises:
        UserError: the cosine is outside (0, 1].
    """
    if cosine is None:
        return None
    if not 0 < cosine <= 1:
        raise UserError(f"cosine={cosine}: must be above 0 and at most 1.")
    return min(cosine, 1.0 - ROUNDING)
