"""Backbones for other programs: formats, model card, a folder for the Hub."""

from simsiam_tf.model_export.formats import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
