"""Files that a crash leaves complete, and that are never written through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from simsiam_tf.runtime.errors import UserError

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # another place or more room may help
TEMPORARY_FILES = ".writing-*.tmp"  # files that are being written, or that a crash has left


def atomic_write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8", "surrogateescape"))


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file; a crash leaves the old one or the new one. A link is replaced, not followed."""
    with atomic_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which takes the place of `path` once it is complete and on the disk.

    Raises:
        OSError: it cannot be written, or `path` is a device or a pipe.
    """
    _check_regular(path)
    temporary = path.with_name(TEMPORARY_FILES.replace("*", secrets.token_hex(8)))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        remove_path(temporary)
        raise


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it exists, and is not a regular file", str(path))


def open_no_link(path: str, flags: int) -> int:
    """Opens a file for `open(opener=…)`; raises OSError if it is a link. Windows follows links."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def check_no_links(folder: Path, files: Iterable[str], folders: Iterable[str]) -> None:
    """Raises UserError for a path in `folder` that is a link, or that exists and is of another kind.

    files, folders: names of paths that must be files, or folders, where they exist.
    """
    kinds = [(folder / name, "file", Path.is_file) for name in files]
    kinds += [(folder / name, "folder", Path.is_dir) for name in folders]
    for path, kind, fits in kinds:
        if path.is_symlink() or (path.exists() and not fits(path)):
            problem = "is a link, which is not followed" if path.is_symlink() else f"is not a {kind}"
            raise UserError(f"{path}: {problem}. Remove it, or choose another folder.")


def check_writable(
    path: Path, option: str = "out", advice: str = "Choose another place.", folders: bool = False
) -> None:
    """Raises UserError if a file could not be written. Call it before making the content.

    option: name of the option that gave `path`, for the message; "" for none. advice: the message's end.
    folders: whether `path` may be a folder, and the caller will make missing folders above it.
    """
    folder = path if folders and path.is_dir() else path.parent
    while folders and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if folder != path:
            _check_regular(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        shown = f"{option}={path}" if option else str(path)
        raise UserError(f"{shown}: cannot be written ({error.strerror}). {advice}") from error


def remove_path(path: Path) -> None:
    """Removes a file, a link or a folder with its content, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
