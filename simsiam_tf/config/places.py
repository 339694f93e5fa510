"""Parses specifications of sets of images, such as "folder:A,tar:B", without opening the sets."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

FILES = ("folder", "list", "tar", "zip", "parquet", "tfrecord")  # kinds of places that are paths or URLs
ENCODED = (*FILES, "hf")  # kinds of places that hold encoded images
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NEXT_PLACE = re.compile(rf",(?=(?:{'|'.join(ENCODED)}):)")  # the comma between two places


def is_url(address: str) -> bool:
    """Whether an address is a URL such as s3://bucket/file, and not a path."""
    return _URL.match(address) is not None


def split_places(data: str) -> list[str]:
    """The places that a specification names: "folder:A,tar:B" → ["folder:A", "tar:B"]."""
    return _NEXT_PLACE.split(data)


def is_encoded(data: Any) -> bool:
    """Whether a specification names places of encoded images."""
    return isinstance(data, str) and data.partition(":")[0] in ENCODED and ":" in data


def is_file(data: Any) -> bool:
    """Whether all that a specification names are paths or URLs."""
    return isinstance(data, str) and all(
        kind in FILES and path for kind, _, path in (place.partition(":") for place in split_places(data))
    )


def absolute_places(data: str) -> str:
    """The same specification with paths that do not depend on the working folder. URLs stay."""
    places = (place.partition(":") for place in split_places(data))
    return ",".join(f"{kind}:{absolute_path(path)}" for kind, _, path in places)


def absolute_path(path: str) -> str:
    """The same path, made independent of the working folder. URLs stay."""
    # NOTE: not os.path.abspath, which takes link/.. for the folder that holds the link.
    return path if "://" in path else os.path.join(os.getcwd(), os.path.expanduser(path))


def check_folders(config: Any) -> None:
    """Raises UserError where an option of a command names a folder of images that is not there.

    It is a check of names alone, before TensorFlow is loaded; whoever opens the folder checks it again.
    """
    for data in (getattr(config, option, None) for option in ("data", "against", "test")):
        for place in split_places(str(data)) if is_encoded(data) else []:
            kind, _, path = place.partition(":")
            if kind == "folder" and not is_url(path) and not os.path.lexists(os.path.expanduser(path)):
                check_folder(path)


def check_folder(path: str) -> None:
    """Raises UserError where a path is no folder, with what to pass instead."""
    if path and Path(path).expanduser().is_dir():
        return
    shown, meant, parts = printable_text(f"folder:{path}"), "folder:/path/to/images", path.split(",")
    folder = posixpath.dirname(path)
    if len(parts) > 1 and all(Path(part).expanduser().is_dir() for part in parts):
        meant = ",".join(f"folder:{part}" for part in parts)
    elif set("*?") & set(path) and Path(folder).expanduser().is_dir():
        meant = f"folder:{folder}"
    raise UserError(f"{shown}: no such folder. Pass data={meant}.")


def list_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a column "path"; of another text, its lines, as paths, without comments."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "path" in (reader.fieldnames or ()):
        return [row for row in reader if row["path"]]
    lines = text.replace("\r\n", "\n").split("\n")
    return [{"path": line} for line in lines if line.strip() and not line.startswith("#")]
