"""Folders of images: lists names and classes, and makes the source that reads the files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data.sources.base import EncodedSource, SourceOptions, short_digest
from simsiam_tf.data.sources.folder_check import UNREADABLE, check_images
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


def open_folder(path: str, options: SourceOptions) -> EncodedSource:
    """Lists a folder, decodes every image once to check it, and returns its source.

    Nested folders are followed, and links to files; hidden folders and links to folders are not. The names
    are relative to the folder and sorted. Images have labels where each lies in a folder of the first level
    and there are at least two such folders. A line on stderr says which images are left out, and which have
    other contents than when the report was written.
    """
    root, shown = Path(path).expanduser(), printable_text(f"folder:{path}")
    if not path or not root.is_dir():
        raise UserError(f"{shown}: no such folder. Pass data=folder:/path/to/images.")
    names = _image_names(root, shown)
    if not names:
        raise UserError(f"{shown}: holds no image ({', '.join(sorted(SUFFIXES))}), at any depth.")
    report = options.report
    outcomes, written = check_images(root, names, shown, report, options.max_megapixels)
    bad = [name for name in names if outcomes[name].startswith(UNREADABLE)]
    if bad:
        example = f"such as {printable_text(bad[0])} ({outcomes[bad[0]].removeprefix(UNREADABLE)})"
        count = f"{shown}: {len(bad)} of {len(names)} images"
        if options.on_bad_image == "error":
            named = f" All are named in {report}." if written else ""
            raise UserError(
                f"{count} cannot be decoded, {example}.{named} Mend or remove them, or pass "
                "on_bad_image=skip."
            )
        print(f"{count} left out{f'; named in {report}' if written else f', {example}'}", file=sys.stderr)
    names = [name for name in names if not outcomes[name].startswith(UNREADABLE)]
    if not names:
        raise UserError(f"{shown}: not one of its images can be decoded.")
    labels, class_names = _classes(names, shown)
    root = root.absolute()  # for data workers, which may run in another folder
    # Names are bytes to the system, and need not be text.
    paths = tf.constant([os.fsencode(root / name) for name in names])
    return EncodedSource(
        f"folder:{path}", len(names), 3, labels, class_names,
        fingerprint=short_digest(os.fsencode("\n".join(names))),
        read=lambda index: tf.io.read_file(tf.gather(paths, index)),
        names=tuple(names), root=root, digests=np.array([outcomes[name] for name in names], np.bytes_),
    )  # fmt: skip


def _image_names(root: Path, shown: str) -> list[str]:
    """Sorted names of all images. A folder that cannot be listed is returned instead of its images."""
    names, pending = [], [""]
    while pending:  # not os.walk, which passes over folders that it cannot list, and recurses
        inside = pending.pop()
        try:
            with os.scandir(os.path.join(root, inside)) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if not inside:
                raise UserError(f"{shown}: cannot be listed ({error.strerror}).") from error
            names.append(os.path.join(inside, ""))
            continue
        for entry in visible:
            name = os.path.join(inside, entry.name)
            if entry.is_dir(follow_symlinks=False):
                pending.append(name)
            # A link to a folder is neither listed nor followed.
            elif os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.isdir(entry):
                names.append(name)
    return sorted(names)


def _classes(names: list[str], shown: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(labels, class names) of images by their folders; a line on stderr names images beside the folders."""
    top_folders = [name.split(os.sep)[0] if os.sep in name else "" for name in names]
    classes = sorted(set(top_folders) - {""})
    strays = [name for name in names if os.sep not in name]
    if strays and len(classes) > 1:
        print(
            f"{shown}: no labels, since {len(strays)} of {len(names)} images lie beside its {len(classes)} "
            f"folders: {printable_text(strays[0])}{', …' * (len(strays) > 1)}. If the folders are classes, "
            "move the images into them, or away.",
            file=sys.stderr,
        )
    if strays or len(classes) < 2:
        return None, ()
    label = {name: i for i, name in enumerate(classes)}
    return np.array([label[folder] for folder in top_folders], np.int64), tuple(classes)
