"""The list of images that a run began with, and stand-ins for images that vanish or break during the run.

The order in which a run sees its images depends on their number. So a run keeps the list that it
began with: the next image in the list stands in for one that is gone, and new images are not used.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.data.sources.array_file import are_joined, read_joined, split_texts, write_arrays
from simsiam_tf.data.sources.base import EncodedSource, Source
from simsiam_tf.data.sources.file_records import TransientError
from simsiam_tf.data.sources.members import Members
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError

FILE = "images.npz"  # in a work folder


def record_images(folder: Path, source: Source) -> None:
    """Writes names, digests, labels, classes and pixel rule of encoded images, unless `folder` has them."""
    if isinstance(source, EncodedSource) and source.names is not None and not (folder / FILE).exists():
        labels = np.zeros(0, np.int64) if source.labels is None else np.asarray(source.labels)
        digests = np.zeros(source.size, "S1") if source.digests is None else source.digests
        names, classes = (np.array(texts, object) for texts in (source.names, source.class_names))
        rule = np.array([json.dumps({"channels": source.channels, **source.rule.options()})], object)
        arrays = {"names": names, "digests": digests, "labels": labels, "classes": classes, "rule": rule}
        write_arrays(folder / FILE, arrays)


def as_recorded(members: Members, folder: Path | None) -> tuple[Members, np.ndarray | None, PixelRule | None]:
    """Arranges the images as the run in a work folder recorded them: (members, digests, pixel rule).

    The digests are those of the start of the run. `read` of an image that is gone raises FileNotFoundError.
    Without a recorded run, returns (members, None, None).
    """
    recorded = read_joined(folder / FILE) if folder else None
    if recorded is None:
        return members, None, None
    labels, class_names = recorded["labels"], tuple(split_texts(recorded["classes"]))
    labels = labels if len(labels) else None
    rule = PixelRule.from_options(**json.loads(next(split_texts(recorded["rule"]))))
    if are_joined(recorded["names"], members.names):
        same = dataclasses.replace(members, read_op=None, class_names=class_names, labels=labels)
        return same, recorded["digests"], rule
    names = list(split_texts(recorded["names"]))
    place = {name: i for i, name in enumerate(members.names)}
    places = np.array([place.get(name, -1) for name in names], np.int64)
    if (places < 0).all():
        raise UserError(
            f"{printable_text(members.name)}: has none of the {len(names):,} images that the run in {folder} "
            "began with. Put them back, or choose another `workdir` for other images."
        )
    new = len(members.names) - int((places >= 0).sum())
    if new:
        shown = printable_text(members.name)
        print(f"{shown}: {new} new images are not used: the run began without them", file=sys.stderr)
    states = np.where(places[:, None] >= 0, members.states[places], 0)

    def read(i: int) -> bytes:
        if places[i] < 0:
            raise FileNotFoundError(2, "No such file or directory", names[i])
        return members.read(int(places[i]))

    listed = dataclasses.replace(
        members, names=names, states=states, read=read, read_op=None, class_names=class_names, labels=labels
    )
    return listed, recorded["digests"], rule


def read_or_next(members: Members, rule: PixelRule, gone: set[int]) -> Callable[[int], bytes]:
    """Makes a function that reads an image or, where that fails, the next one in the list.

    A line on stderr names the image: once, or each time where the failure may pass (`TransientError`).

    gone: indices of the images that are known to be unreadable; the function adds to them.
    """
    count, shown = len(members.names), printable_text(members.name)

    def read(i: int) -> bytes:
        for j in ((i + step) % count for step in range(count)):
            if j in gone:
                continue
            try:
                data = members.read(j)
                # A stand-in is encoded anew, since the pipeline decodes by the header of the missing image.
                return data if j == i else _encoded(render(data, rule))
            except (OSError, ValueError) as error:
                if not isinstance(error, TransientError):
                    gone.add(j)
                name, reason = printable_text(members.names[j]), getattr(error, "strerror", None) or error
                progress.say(f"{shown}: {name}: {one_line(reason)}; the next image stands in for it")
        raise UserError(f"{shown}: not one of its images can be read.")

    return read


def _encoded(pixels: np.ndarray) -> bytes:
    """Encodes pixels as PNG, or as .npy where the channels are not 1 or 3.

    Either is decoded correctly, whatever the recorded header of the missing image says.
    """
    file = io.BytesIO()
    if pixels.shape[-1] in (1, 3):
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    else:
        np.save(file, pixels)
    return file.getvalue()
