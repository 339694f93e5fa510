"""Lists of images: text with a path in each line, or CSV with columns path and, optionally, label, split."""

from __future__ import annotations

import collections
import posixpath

import numpy as np

from simsiam_tf.config.places import list_rows
from simsiam_tf.data.sources.addresses import absolute, address_states, is_url, read_bytes, reads_at_once
from simsiam_tf.data.sources.base import MissingSplit
from simsiam_tf.data.sources.members import Members
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError


def list_members(address: str, split: str) -> Members:
    """The images that a list names, by paths relative to the list, absolute paths or URLs.

    split: value of the column "split" in the rows to take; a list without this column has only "train".

    Raises:
        UserError: the list, its split or one of its images is missing, or an image is named twice.
    """
    name = f"list:{address}"
    shown, file = printable_text(name), absolute(address)
    try:
        text = read_bytes(file).decode("utf-8-sig", "surrogateescape")
    except (OSError, ValueError) as error:
        raise UserError(f"{shown}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    rows = list_rows(text)
    if not rows:
        raise UserError(f"{shown}: names no image.")
    classes = sorted({row.get("label") or "" for row in rows} - {""})  # of all splits
    if "split" in rows[0]:
        splits = sorted({row["split"] or "" for row in rows})
        rows = [row for row in rows if row["split"] == split]
        if not rows:
            raise MissingSplit(f"{shown}: has no split {split!r}. Its splits: {', '.join(splits)}.")
    elif split != "train":
        raise MissingSplit(f"{shown}: has no column `split`, and so no split {split!r}.")
    names = [row["path"] for row in rows]
    (most, times), *_ = collections.Counter(names).most_common(1)
    if times > 1:
        raise UserError(f"{shown}: names {printable_text(most)} {times} times.")
    folder = posixpath.dirname(file)
    places = [n if is_url(n) or posixpath.isabs(n) else posixpath.join(folder, n) for n in names]
    states = address_states(places)
    missing = np.flatnonzero(~states.any(axis=1))
    if len(missing):
        such = printable_text(names[missing[0]])
        raise UserError(
            f"{shown}: lacks {len(missing)} of its {counted(len(names), 'image')}, such as {such}. Paths are "
            f"relative to the list's folder, {folder}. A name with a line break needs CSV."
        )
    labels = None
    if classes:
        number = {name: i for i, name in enumerate(classes)}
        labels = np.array([number.get(row["label"] or "", -1) for row in rows], np.int64)
    return Members(
        name, names, states, lambda i: read_bytes(places[i]), file, labels, tuple(classes),
        reads_at_once=reads_at_once(places),
    )  # fmt: skip
