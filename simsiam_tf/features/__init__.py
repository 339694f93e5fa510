"""Features of images by a frozen backbone: extracted once, stored in files, searched by cosine."""

from simsiam_tf.features.embedding_file import Embeddings, embed
from simsiam_tf.features.extraction import extract
from simsiam_tf.features.knn import knn_accuracy, nearest
from simsiam_tf.features.query import embed_file

__all__ = ["Embeddings", "embed", "embed_file", "extract", "knn_accuracy", "nearest"]
