"""The tables of the paper, row by row: what they hold, how they run at a smaller scale, what came out."""

from simsiam_tf.reproduction.rows import TABLES, Row
from simsiam_tf.reproduction.scales import SCALES, Scale

__all__ = ["SCALES", "TABLES", "Row", "Scale"]
