"""Answers about pictures: duplicates, outliers, clusters, subsets, wrong labels, leaks, statistics."""

from simsiam_tf.curation.clusters import Clusters, hdbscan_clusters, k_means_clusters
from simsiam_tf.curation.distinct_neighbours import distinct_neighbours
from simsiam_tf.curation.duplicate_threshold import duplicate_cosine
from simsiam_tf.curation.duplicates import Duplicates, duplicates
from simsiam_tf.curation.leaks import Leaks, leaks
from simsiam_tf.curation.neighbour_graph import NeighbourGraph, cross_neighbours, neighbour_graph
from simsiam_tf.curation.outliers import Outliers, outliers
from simsiam_tf.curation.statistics import (
    PictureStatistics,
    StatisticsTable,
    picture_statistics,
    statistics_table,
)
from simsiam_tf.curation.subset import Subset, subset
from simsiam_tf.curation.suspects import Suspects, suspects, vote_probabilities

__all__ = [
    "Clusters", "Duplicates", "Leaks", "NeighbourGraph", "Outliers", "PictureStatistics", "StatisticsTable",
    "Subset", "Suspects", "cross_neighbours", "distinct_neighbours", "duplicate_cosine", "duplicates",
    "hdbscan_clusters", "k_means_clusters", "leaks", "neighbour_graph", "outliers", "picture_statistics",
    "statistics_table", "subset", "suspects", "vote_probabilities",
]  # fmt: skip
