"""Reads pictures of a set by their names, to show them."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.config.places import split_places
from simsiam_tf.data import open_source
from simsiam_tf.data.images.header import check_size, read_header
from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.data.sources.addresses import is_url, read_bytes
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

Reader = Callable[[str], np.ndarray | None]  # name → uint8 [H, W, 3]; None where it cannot be read


def picture_reader(data: Any, about: dict[str, Any], must_open: bool = False) -> Reader:
    """A function that reads pictures of a set.

    Those of a folder or a list are read as files; other sets are opened by `open_source`.

    Args:
        data: a folder, or a specification as for `open_source`.
        about: what embeddings record of their images; "pixels" says how encoded images become pixels.
        must_open: whether to raise UserError where `data` cannot be opened; else no picture can be read.
    """
    if not isinstance(data, str):
        return lambda name: None
    if os.path.isdir(os.path.expanduser(data)):
        data = f"folder:{data}"
    kind, _, path = data.partition(":")
    if kind in ("folder", "list") and len(split_places(data)) == 1:
        path = path if is_url(path) else os.path.abspath(os.path.expanduser(path))
        if must_open and not is_url(path) and not os.path.exists(path):
            raise UserError(f"images={printable_text(data)}: no such folder or list.")
        base = path if kind == "folder" else posixpath.dirname(path)
        return lambda name: file_picture(name if is_url(name) else posixpath.join(base, name), about)
    try:
        source = open_source(data, check="none", on_bad_image="skip")
    except UserError as error:
        if must_open:
            raise
        print(f"The pictures of the page cannot be opened: {error}", file=sys.stderr)
        return lambda name: None
    names = getattr(source, "names", None) or map(str, range(source.size))
    ids = {name: i for i, name in enumerate(names)}

    def read(name: str) -> np.ndarray | None:
        try:
            pixels = source.decode(tf.constant(ids[name], tf.int64)).numpy()
        except (KeyError, ValueError, tf.errors.OpError):
            return None
        return pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)

    return read


def file_picture(address: str, about: dict[str, Any]) -> np.ndarray | None:
    """The picture of an image file, uint8 [H, W, 3]; None where it cannot be read.

    about: as for `picture_reader`.
    """
    options = about.get("pixels")
    try:
        rule = PixelRule.from_options(3, **(options if isinstance(options, dict) else {}))
        if not is_url(address):
            check_size(os.path.getsize(address), address)
        data = read_bytes(address)
        read_header(data)
        return render(data, rule)
    except (OSError, ValueError, TypeError):
        return None
