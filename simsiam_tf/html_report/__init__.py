"""A pre-training as one HTML page: curves, pictures, metrics and the diagnosis in words."""

from simsiam_tf.html_report.page import write_report

__all__ = ["write_report"]
