"""The tables of the paper, row by row: what they hold, how they run at a smaller scale, what came out."""

from scripts.paper.rows import TABLES, Row
from scripts.paper.scales import SCALES, Scale

__all__ = ["SCALES", "TABLES", "Row", "Scale"]
