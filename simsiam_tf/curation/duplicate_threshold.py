"""The least cosine of near-duplicates, chosen from the distances of nearest neighbours."""

from __future__ import annotations

import numpy as np

from simsiam_tf.runtime.errors import UserError

ROUNDING = 2e-6  # 1 − cosine of equal pictures, in float32
LEAST_NEIGHBOURS = 6  # fewer say nothing about the surroundings of a row
BODY = 0.75  # quantile of the rows that is taken for rows without duplicates
MOST_DIMENSION = 32.0
LENIENCE = 1.5  # the dimension around a row, from 20 neighbours, has a standard deviation of some 30 %
FARTHEST = 0.2  # of the distance that rows without duplicates have to their nearest
COST = 4  # of a row without duplicates above the cosine, in rows with


def duplicate_cosine(cosine: np.ndarray) -> float:
    """The least cosine at which two rows are near-duplicates, in (0, 1).

    A cosine alone does not tell duplicates: other pictures of a narrow class (trousers) may be nearer to each
    other than copies of varied ones. So a row counts as having a duplicate where its nearest neighbour is far
    nearer than its surroundings. With d = 1 − cosine of the nearest and D that of the k-th, d / D is so small
    in at most 1 of N rows without duplicates. These are taken to lie evenly around a row in m dimensions of
    d; then (d / D)^m is Beta(1, k − 1), and P(d / D < r) ≤ (k − 1) r^m (the Poisson model of Levina and
    Bickel 2004). m comes from the 0.75 quantile of d / D of all rows, which up to half of the rows being
    copies hardly moves, and, row by row, from the distance of the neighbour number k / 2, where that is
    lower, as along a video.

    The threshold maximises the rows with a duplicate above it, less `COST` times those without. It lies
    (geometrically) half-way to the next nearest distance, since re-encoded copies of a picture differ by
    unequal distances. Without duplicates only equal features are above it. And 1 − threshold is at most
    `FARTHEST` times the 0.75 quantile of the distances to the nearest: variants of one drawing, such as icons
    of a family, are farther from each other than that.

    Copies of one picture beyond k / 2 are their own surroundings: they count where they are equal, not where
    they are merely near; pass a cosine for such sets.

    Args:
        cosine: [N, k], of the k nearest others of each row, the nearest first.
    """
    d = np.maximum(1.0 - np.asarray(cosine, np.float64), ROUNDING)
    rows, k = d.shape
    nearest, last, middle = d[:, 0], d[:, -1], d[:, k // 2 - 1]
    duplicate = nearest <= ROUNDING
    spread = last > ROUNDING  # rows whose k neighbours are not all copies
    if k >= LEAST_NEIGHBOURS and spread.any():
        ratio = np.log(nearest / last)
        typical = np.quantile(ratio[spread], BODY)
        dimension = np.log1p(-((1 - BODY) ** (1 / (k - 1)))) / min(typical, -1e-9)
        with np.errstate(divide="ignore"):
            around = np.log(2) / np.log(last / middle)  # (middle / last)^m is about Beta(k/2, k/2)
        m = np.minimum(np.minimum(LENIENCE * around, dimension), MOST_DIMENSION)
        duplicate |= spread & (m * ratio + np.log(k - 1) < -np.log(rows))
    order = np.argsort(nearest, kind="stable")
    # A copy has at least one partner, so that one row alone may be a chance.
    score = np.cumsum(np.where(duplicate[order], 1, -COST))
    ends = np.append(np.flatnonzero(np.diff(nearest[order])), rows - 1)  # equal distances stay together
    best = ends[score[ends].argmax()]
    if score[best] < 2:
        return 1.0 - ROUNDING
    threshold, further = nearest[order[best]], nearest[order[best + 1 :]]
    half_way = np.sqrt(threshold * further[0]) if len(further) else threshold
    alone = nearest[nearest > ROUNDING]
    farthest = FARTHEST * np.quantile(alone, BODY) if len(alone) else ROUNDING
    return float(1.0 - max(min(half_way, farthest), ROUNDING))


def check_cosine(cosine: float | None) -> float | None:
    """A given least cosine, at most that of equal rows in float32. Raises UserError outside (0, 1].

    None stays None, and is chosen by `duplicate_cosine`.
    """
    if cosine is None:
        return None
    if not 0 < cosine <= 1:
        raise UserError(f"cosine={cosine}: must be above 0 and at most 1.")
    return min(cosine, 1.0 - ROUNDING)
