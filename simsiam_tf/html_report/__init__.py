"""A pre-training as one HTML page: curves, pictures, metrics and the diagnosis in words."""

__all__ = ["write_report"]


def __getattr__(name: str):
    # Lazy, so that `projections` and `templates` can be used without loading TensorFlow.
    if name == "write_report":
        from simsiam_tf.html_report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
