"""Files that are whole, whatever happens while they are written, and that lie where their path says."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from simsiam_tf.runtime.errors import UserError

TEMPORARY_FILES = ".writing-*.tmp"  # names of files that are being written, or that a crash has left


def atomic_write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8 so that a crash leaves the old one or the new one, whole."""
    atomic_write_bytes(path, text.encode("utf-8", "surrogateescape"))


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one, whole.

    A link in its place is replaced, not followed.

    Raises:
        OSError: it cannot be written, or is a device or a pipe.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is there, and is no regular file", str(path))
    temporary = path.with_name(TEMPORARY_FILES.replace("*", f"{os.getpid()}-{secrets.token_hex(4)}"))
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def open_no_link(path: str, flags: int) -> int:
    """An `opener` of `open` that raises OSError where a link lies in the file's place."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def check_no_links(folder: Path, files: Iterable[str], folders: Iterable[str]) -> None:
    """Raises UserError where one of the files and folders to be written is a link, or of another kind."""
    for names, kind, fits in ((files, "file", stat.S_ISREG), (folders, "folder", stat.S_ISDIR)):
        for name in names:
            path = folder / name
            with contextlib.suppress(FileNotFoundError):
                mode = path.lstat().st_mode
                if not fits(mode):
                    found = "is a link, which is not followed" if stat.S_ISLNK(mode) else f"is no {kind}"
                    raise UserError(f"{path}: {found}. Remove it, or choose another folder.")


def check_writable(
    path: Path, option: str = "out", advice: str = "Choose another place.", folders: bool = False
) -> None:
    """Raises UserError where a file could not be written: before the work that makes its content.

    folders: whether it may be a folder, and folders that are missing will be made.
    """
    inside = path if folders and path.is_dir() else path.parent
    while folders and not inside.exists() and inside != inside.parent:
        inside = inside.parent
    try:
        if path.exists() and not path.is_file() and inside != path:
            raise OSError(errno.EINVAL, "it is there, and is no regular file")
        with tempfile.TemporaryFile(dir=inside):
            pass
    except OSError as error:
        named = f"{option}={path}" if option else str(path)
        raise UserError(f"{named}: cannot be written ({error.strerror}). {advice}") from error


def remove_path(path: Path) -> None:
    """Removes a file, a link or a whole folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
