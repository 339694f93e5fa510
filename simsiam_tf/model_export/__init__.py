"""Backbones for other programs: formats, model card, a folder for the Hub."""

from simsiam_tf.model_export.formats import FORMATS, ExportedModel, export_model

__all__ = ["FORMATS", "ExportedModel", "export_model"]
