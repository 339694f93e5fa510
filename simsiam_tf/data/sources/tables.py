"""Tables of images: Parquet files, Hugging Face's data sets, and TFRecord files."""

from __future__ import annotations

import json
import posixpath
import struct
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data.sources.addresses import absolute, address_state, expand, is_url, open_address, read_bytes
from simsiam_tf.data.sources.file_records import cache_folder, kept_arrays
from simsiam_tf.data.sources.members import Members
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, nearest

