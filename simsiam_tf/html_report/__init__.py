"""A pre-training or a transfer as one HTML page: curves, pictures, metrics, the diagnosis in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simsiam_tf.html_report.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str):
    # Lazy, so that `projections` and `templates` can be used without loading TensorFlow.
    if name == "write_report":
        from simsiam_tf.html_report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
