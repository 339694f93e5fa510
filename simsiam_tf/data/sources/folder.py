"""Folders of images: which of their files are images, and their classes."""

from __future__ import annotations

import collections
import contextlib
import os
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.config.places import check_folder
from simsiam_tf.data.images.formats import IMAGE_SUFFIXES, MAGIC_BYTES, OTHER_SUFFIXES, image_format
from simsiam_tf.data.sources.addresses import (
    READS_AT_ONCE,
    file_system,
    is_url,
    read_bytes,
    remote_state,
    try_again,
)
from simsiam_tf.data.sources.file_records import STATE, file_state
from simsiam_tf.data.sources.members import Members, changed_file, folder_classes
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

LINKS = "links to folders"
SETS_IN_A_FILE = {".zip": "zip", ".tar": "tar", ".parquet": "parquet", ".tfrecord": "tfrecord"}


def folder_members(path: str) -> Members:
    """The images of a folder and of the folders within, labelled by the folders of the first level.

    Names are relative to the folder and sorted. A file is an image by its suffix or, on this machine and
    where the suffix tells nothing, by its first bytes. Links to files are followed. Hidden files and folders,
    links to folders and other files are passed over; a line on stderr counts them.

    path: path or URL.

    Raises:
        UserError: the folder is missing, cannot be listed, or holds no image.
    """
    shown = printable_text(f"folder:{path}")
    passed_over: collections.Counter[str] = collections.Counter()
    members = (_remote_members if is_url(path) else local_members)(path, shown, passed_over)
    links = passed_over.pop(LINKS, 0)
    others = ", ".join(f"{n} {kind}" for kind, n in passed_over.most_common(6))
    if links:
        others = ", ".join(filter(None, [others, counted(links, "link to a folder", LINKS)]))
    if not members.names:
        raise UserError(f"{shown}: holds no image, at any depth{f' ({others})' if others else ''}.")
    if others:
        total = passed_over.total() + links
        inside = next((kind for suffix, kind in SETS_IN_A_FILE.items() if suffix in passed_over), None)
        way = f". Images in archives are read if you pass {shown},{inside}:PATH" if inside else ""
        print(f"{shown}: {counted(total, 'file')} passed over: {others}{way}", file=sys.stderr)
    return members


def local_members(path: str, shown: str, passed_over: collections.Counter) -> Members:
    """The images of a folder of this machine, of which there may be none, as in `folder_members`.

    shown: the specification, for messages. passed_over: kind → number of other files, to which this adds.
    """
    root = Path(path).expanduser()
    if root.is_file():
        raise UserError(f"{shown}: is a file. Pass data={specification_of_file(root)}.")
    check_folder(path)
    root = root.absolute()  # for data workers, which may run in another folder
    found = progress.bar(
        _image_names(root, shown, passed_over), f"listing {shown}", unit="image", leave=False
    )
    names = tuple(sorted(found))
    states = np.empty((len(names), len(STATE)), np.int64)  # a million tuples would take a quarter of a GiB
    for i, name in enumerate(progress.bar(names, f"times of the files of {shown}", unit="file", leave=False)):
        states[i] = file_state(os.path.join(root, name))

    def read(i: int) -> bytes:
        path = os.path.join(root, names[i])
        data = read_bytes(path)
        if file_state(path) != tuple(states[i]):
            raise changed_file(path)
        return data

    return Members(
        f"folder:{path}", names, states, read, str(root), *folder_classes(names), root,
        lambda i: tf.io.read_file(tf.gather(tf.constant(_paths(root, names)), i)),
    )  # fmt: skip


def specification_of_file(path: Path) -> str:
    """The specification of an archive, a table or a list; of an image file, that of its folder."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return f"folder:{path.parent}"
    return f"{SETS_IN_A_FILE.get(suffix, 'list')}:{path}"


def _paths(root: Path, names: Sequence[str]) -> list[bytes]:
    """Paths as bytes: the system's names need not be valid text."""
    return [os.fsencode(os.path.join(root, name)) for name in names]


def _image_names(root: Path, shown: str, passed_over: collections.Counter) -> Iterator[str]:
    """Names of all images. A folder that cannot be listed stands for its images, as an unreadable file."""
    pending = [""]
    while pending:  # not os.walk, which passes over folders that it cannot list
        inside = pending.pop()
        try:
            with os.scandir(os.path.join(root, inside)) as scan:
                entries = list(scan)
        except OSError as error:
            if not inside:
                raise UserError(f"{shown}: cannot be listed ({error.strerror}).") from error
            yield os.path.join(inside, "")
            continue
        for entry in entries:
            name = os.path.join(inside, entry.name)
            if entry.name.startswith("."):
                passed_over["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                pending.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                passed_over[LINKS] += 1
            elif _is_image(entry.path, passed_over):
                yield name


def _is_image(path: str, passed_over: collections.Counter) -> bool:
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix not in OTHER_SUFFIXES and os.path.isfile(path):
        with contextlib.suppress(OSError, ValueError):
            image_format(read_bytes(path, (0, min(MAGIC_BYTES, os.path.getsize(path)))))
            return True
    passed_over[printable_text(suffix) or "without a suffix"] += 1
    return False


def _remote_members(url: str, shown: str, passed_over: collections.Counter) -> Members:
    system, root = file_system(url)
    try:
        infos = _remote_files(url, system, root)
    except OSError as error:
        raise UserError(f"{shown}: cannot be listed ({error.strerror or error}).") from error
    names, states = [], []
    start = len(root.rstrip("/")) + 1
    for path, info in sorted(infos.items()):
        name, suffix = path[start:], posixpath.splitext(path)[1].lower()
        if any(part.startswith(".") for part in name.split("/")):
            passed_over["hidden"] += 1
        elif suffix in IMAGE_SUFFIXES:
            names.append(name)
            states.append(remote_state(info))
        else:
            passed_over[printable_text(suffix) or "without a suffix"] += 1
    base = url.rstrip("/")
    return Members(
        f"folder:{url}", names, np.array(states, np.int64).reshape(-1, 3),
        lambda i: read_bytes(f"{base}/{names[i]}"), url, *folder_classes(names), reads_at_once=READS_AT_ONCE,
    )  # fmt: skip


def _remote_files(url: str, system: Any, root: str) -> dict[str, Mapping[str, Any]]:
    """Path → fsspec's info, of all files in a folder and the folders within. Raises OSError."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    walks = getattr(type(system), "_find", None) is AsyncFileSystem._find
    walks = walks or type(system).find is AbstractFileSystem.find
    if not walks:  # object stores list all files at once
        return try_again(url, lambda: system.find(root, detail=True))
    files, pending = {}, [root]
    while pending:  # not fsspec's walk, which passes over folders that it cannot list
        folder = pending.pop()
        for info in try_again(url, lambda folder=folder: system.ls(folder, detail=True)):
            path = info["name"].rstrip("/")
            if info["type"] != "directory":
                files[path] = info
            elif path != folder:
                pending.append(info["name"])
    return files
