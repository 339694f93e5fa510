"""Files that lie anywhere: paths of this machine, and URLs of every file system that fsspec knows."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import itertools
import operator
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

from simsiam_tf.data.sources.file_records import file_state
from simsiam_tf.runtime.errors import UserError

TRIES = 6  # of a read over the network, after 0.5, 1, 2, 4 and 8 seconds
FIRST_WAIT = 0.5  # seconds
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_NOT_TRIED_AGAIN = (FileNotFoundError, PermissionError, NotImplementedError)
T = TypeVar("T")


def is_url(address: str) -> bool:
    """Whether an address is a URL such as s3://bucket/file, and not a path."""
    return _URL.match(address) is not None


def file_system(address: str) -> tuple[Any, str]:
    """(fsspec's file system, path on it) of a URL."""
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"{address}: URLs need fsspec: pip install 'simsiam-tf[remote]'.") from error
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:  # a scheme whose library is missing, or that nobody knows
        raise UserError(f"{address}: cannot be opened ({error}).") from error


def read_bytes(address: str, start: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file, or `length` of them from `start` on.

    Raises:
        OSError: it cannot be read, after several tries over the network.
        ValueError: it is a pipe, a device or a folder.
    """
    if is_url(address):
        system, path = file_system(address)
        end = None if length is None else start + length
        data = try_again(lambda: system.cat_file(path, start=start, end=end))
    else:
        with _open_regular_file(address) as file:
            file.seek(start)
            data = file.read(os.fstat(file.fileno()).st_size if length is None else length)
    if length is not None and len(data) != length:
        raise OSError(f"{address}: cut off at byte {start + len(data)}")
    return data


@contextlib.contextmanager
def _open_regular_file(path: str) -> Iterator[BinaryIO]:
    """Opens a file, and no pipe, device or folder, which may never end. Raises OSError or ValueError."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened, which can have an effect
        raise ValueError("not a regular file")
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    with open(os.open(path, functools.reduce(operator.or_, flags, os.O_RDONLY)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # another file by now
            raise ValueError("not a regular file")
        yield file


def try_again(read: Callable[[], T]) -> T:
    """The result of `read`, which may fail a few times for reasons that pass."""
    for attempt in range(TRIES):
        try:
            return read()
        except _NOT_TRIED_AGAIN:
            raise
        except Exception as error:  # noqa: BLE001 - each file system raises its library's own
            if attempt == TRIES - 1:
                raise OSError(f"{' '.join(str(error).split())[:200] or type(error).__name__}") from error
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


@contextlib.contextmanager
def open_address(address: str) -> Iterator[Any]:
    """A file object of bytes that can seek."""
    if is_url(address):
        system, path = file_system(address)
        with system.open(path, "rb") as file:
            yield file
    else:
        with _open_regular_file(address) as file:
            yield file


def address_state(address: str) -> tuple[int, int, int]:
    """Three numbers that differ once a file was written to or replaced, as `file_state`; zeros if missing."""
    if not is_url(address):
        return file_state(address)
    system, path = file_system(address)
    try:
        info = try_again(lambda: system.info(path))
    except FileNotFoundError:
        return 0, 0, 0
    return remote_state(info)


def remote_state(info: Mapping[str, Any]) -> tuple[int, int, int]:
    """The state of a file on one of fsspec's file systems, by what that says of it."""
    version = [str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in info]
    digest = hashlib.sha256("\n".join(version).encode()).digest()
    return int(info.get("size") or 0), int.from_bytes(digest[:7], "big"), 1


def absolute(address: str) -> str:
    """The address for a process in any working folder."""
    return address if is_url(address) else os.path.abspath(os.path.expanduser(address))


def expand(pattern: str) -> list[str]:
    """The addresses that a pattern stands for: braces as in a{00..12}.tar and {a,b}.tar, then *, ? and [].

    Raises:
        UserError: nothing matches, or one of the names in braces is missing.
    """
    addresses: list[str] = []
    for one in _without_braces(pattern):
        if glob.has_magic(one.partition("://")[2] or one):
            addresses += _glob(one)
        elif any(address_state(absolute(one))):
            addresses.append(absolute(one))
        else:
            raise UserError(f"{one}: no such file.{f' It is one of {pattern}.' if one != pattern else ''}")
    if not addresses:
        raise UserError(f"{pattern}: no file fits this pattern.")
    return list(dict.fromkeys(addresses))


def _glob(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob.glob(absolute(pattern), recursive=True))
    system, path = file_system(pattern)
    names = try_again(lambda: system.glob(path))
    return [name if is_url(name) else pattern[: pattern.index("://") + 3] + name for name in sorted(names)]


def _without_braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, dots, last = match[1].partition("..")
    if dots and first.isdigit() and last.isdigit():
        choices = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    else:
        choices = match[1].split(",")
    ends = _without_braces(pattern[match.end() :])
    return [pattern[: match.start()] + a + b for a, b in itertools.product(choices, ends)]
