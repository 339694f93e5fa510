"""A run as one page: what was learned, in curves, pictures and words."""

from simsiam_tf.html_report.page import write

__all__ = ["write"]
