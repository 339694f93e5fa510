"""A set of images as one page, `curation.html`, with a map and galleries, and the same as a Parquet table."""

from simsiam_tf.curation_page.content import Categories, CurationContent, Gallery, Numbers, PictureGroup
from simsiam_tf.curation_page.page import write_page
from simsiam_tf.curation_page.projection import Projection, project
from simsiam_tf.curation_page.table import write_table
from simsiam_tf.curation_page.thumbnails import encode_thumbnail

__all__ = [
    "Categories", "CurationContent", "Gallery", "Numbers", "PictureGroup", "Projection", "encode_thumbnail",
    "project", "write_page", "write_table",
]  # fmt: skip
