"""The paper's tables: their rows, at the paper's scale or a smaller one, and results beside the paper's."""

from scripts.paper.rows import TABLES, Row
from scripts.paper.scales import SCALES, Scale

__all__ = ["SCALES", "TABLES", "Row", "Scale"]
