"""Exports backbones for other programs: files, model cards, folders for the Hub and for keras-hub."""

from simsiam_tf.model_export.formats import FORMATS, ExportedModel, export_model
from simsiam_tf.model_export.model_card import write_model_card

__all__ = ["FORMATS", "ExportedModel", "export_model", "write_model_card"]
