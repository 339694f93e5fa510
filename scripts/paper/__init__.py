"""The paper's tables: their rows, the same rows at smaller scales, and the results beside the paper's."""

from scripts.paper.rows import TABLES, Row
from scripts.paper.scales import SCALES, Scale

__all__ = ["SCALES", "TABLES", "Row", "Scale"]
