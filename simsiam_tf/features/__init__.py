"""Features of images by a frozen backbone: made once, kept in files, searched by cosine."""

from simsiam_tf.features.embedding_file import Embeddings, embed
from simsiam_tf.features.extraction import extract
from simsiam_tf.features.knn import knn_accuracy, nearest
from simsiam_tf.features.query import of_file

__all__ = ["Embeddings", "embed", "extract", "knn_accuracy", "nearest", "of_file"]
