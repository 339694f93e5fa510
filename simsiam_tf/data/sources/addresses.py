"""Files that lie anywhere: paths of this machine, and URLs of every file system that fsspec knows."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import glob
import hashlib
import io
import itertools
import operator
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import numpy as np

from simsiam_tf.config.places import is_url
from simsiam_tf.data.sources.file_records import TransientError, file_state
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError

TRIES = 6  # of a read over the network: the first, then others after 0.5, 1, 2, 4 and 8 seconds
FIRST_WAIT = 0.5  # seconds
READS_AT_ONCE = 16  # over the network, since reads there mostly wait
BLOCK = 5 * 2**20  # bytes read at a time by `open_address` from a URL
_BRACES = re.compile(r"\{([^{}]*)\}")
_HTTP_ERRORS = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}
_STAYS = (  # errors that trying again does not mend
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError,
)  # fmt: skip
_PASSING_STATUSES = (408, 425, 429)  # of HTTP below 500: timeout, too early, too many requests
_VERSION_KEYS = (  # fields of fsspec's `info` that change with a file
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "LastModified", "Last-Modified", "last_modified",
    "mtime", "created", "updated", "modified", "modify",
)  # fmt: skip
T = TypeVar("T")


def file_system(address: str) -> tuple[Any, str]:
    """(fsspec's file system, path on it) of a URL."""
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"{address}: URLs need fsspec: pip install 'simsiam-tf[remote]'.") from error
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:  # a scheme whose library is missing, or that nobody knows
        fix = " Try: pip install 'simsiam-tf[remote]'." if address.startswith("http") else ""
        raise UserError(f"{address}: cannot be opened ({error}).{fix}") from error


def read_bytes(address: str, part: tuple[int, int] | None = None) -> bytes:
    """The bytes of a file.

    part: (start, length) of the bytes to read; all when None.

    Raises:
        OSError: it cannot be read, after several tries over the network.
        ValueError: it is a pipe, a device or a folder.
    """
    start, length = part or (0, None)
    if is_url(address):
        if length == 0:  # not every file system reads an empty part
            return b""
        system, path = file_system(address)
        limits = {} if length is None else {"start": start, "end": start + length}
        data = try_again(address, lambda: system.cat_file(path, **limits))
    else:
        with _open_regular_file(address) as file:
            file.seek(start)
            data = file.read(os.fstat(file.fileno()).st_size if length is None else length)
    if length is not None and len(data) > length:
        raise OSError(errno.EIO, "the server sends whole files where a part is asked for", address)
    if length is not None and len(data) < length:
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


def try_again(address: str, read: Callable[[], T]) -> T:
    """The result of `read`, which is tried up to `TRIES` times while it fails for reasons that may pass.

    Raises:
        OSError: it failed for a reason that stays, or each time (`TransientError`).
    """
    for attempt in range(TRIES):
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - each file system raises its library's own
            failure = _os_error(address, error)
            if not isinstance(failure, TransientError) or attempt == TRIES - 1:
                raise failure from error
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


def _os_error(address: str, error: Exception) -> OSError:
    """A file system's error as an OSError: of its kind where it stays, `TransientError` where it may pass."""
    # NOTE: fsspec's http raises FileNotFoundError whenever it learns nothing of a file, whatever the cause.
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(status, int):
        passes = status >= 500 or status in _PASSING_STATUSES
        kind = _HTTP_ERRORS.get(status, TransientError if passes else OSError)
        reason = f"HTTP status {status} {getattr(cause, 'message', '')}".strip()
    elif isinstance(cause, ConnectionError | TimeoutError) or type(cause).__module__.startswith("aiohttp"):
        kind, reason = TransientError, " ".join(str(cause).split())[:200] or type(cause).__name__
    else:
        stays = isinstance(error, _STAYS) or getattr(error, "errno", None) == errno.EINVAL  # S3's status 400
        kind = (type(error) if isinstance(error, OSError) else OSError) if stays else TransientError
    if kind is FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address)
    return kind(errno.EACCES if kind is PermissionError else errno.EIO, reason, address)


def _unreadable(address: str, error: OSError) -> UserError:
    return UserError(f"{address}: cannot be read ({error.strerror or error}).")


class _RemoteFile(io.RawIOBase):
    """A seekable file behind a URL, whose reads are tried again when they fail. size: its bytes."""

    def __init__(self, address: str, size: int) -> None:
        self._address, self._size, self._at = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            try:
                buffer[:length] = read_bytes(self._address, (self._at, length))
            except OSError as error:
                raise _unreadable(self._address, error) from error
        self._at += length
        return length


@contextlib.contextmanager
def open_address(address: str) -> Iterator[Any]:
    """Opens a seekable file of bytes. Raises UserError for a URL, OSError or ValueError for a path."""
    if is_url(address):
        system, path = file_system(address)
        try:
            size = try_again(address, lambda: system.info(path)).get("size")
        except OSError as error:
            raise _unreadable(address, error) from error
        if size is None:
            raise UserError(f"{address}: cannot be read (the server does not say how long it is).")
        with io.BufferedReader(_RemoteFile(address, size), BLOCK) as file:
            yield file
    else:
        with _open_regular_file(address) as file:
            yield file


def copy_file(address: str, target: str) -> None:
    """Copies a file to a path of this machine, with a progress bar. Raises UserError if it cannot be read."""
    system, path = file_system(address)
    from fsspec.callbacks import TqdmCallback

    def copy() -> None:
        shown = {"description": f"downloading {address}", "unit": "B", "unit_scale": True}
        with TqdmCallback(tqdm_kwargs={"items": None, **shown}, tqdm_cls=progress.bar) as callback:
            system.get_file(path, target, callback=callback)

    try:
        try_again(address, copy)
    except OSError as error:
        raise _unreadable(address, error) from error


def address_state(address: str) -> tuple[int, int, int]:
    """Three numbers that differ once a file was written to or replaced, as `file_state`; zeros if missing."""
    if not is_url(address):
        return file_state(address)
    system, path = file_system(address)
    try:
        return remote_state(try_again(address, lambda: system.info(path)))
    except FileNotFoundError:
        return 0, 0, 0
    except OSError as error:
        raise _unreadable(address, error) from error


def address_states(addresses: Sequence[str]) -> np.ndarray:
    """`address_state` of each: int64 [N, 3]. Those of URLs are asked for several at a time."""
    if any(map(is_url, addresses)):
        with concurrent.futures.ThreadPoolExecutor(READS_AT_ONCE) as pool:
            states = list(pool.map(address_state, addresses))
    else:
        states = [address_state(address) for address in addresses]
    return np.array(states, np.int64).reshape(-1, 3)


def reads_at_once(addresses: Iterable[str]) -> int:
    """Images to read at a time: `READS_AT_ONCE` where an address is a URL, 0 for paths alone."""
    return READS_AT_ONCE if any(map(is_url, addresses)) else 0


def remote_state(info: Mapping[str, Any]) -> tuple[int, int, int]:
    """The `address_state` of a file by what fsspec says of it, its `info`."""
    version = [str(info[key]) for key in _VERSION_KEYS if key in info]
    digest = hashlib.sha256("\n".join(version).encode()).digest()
    return int(info.get("size") or 0), int.from_bytes(digest[:7], "big"), 1


def absolute(address: str) -> str:
    """The address as an absolute path; a URL stays."""
    return address if is_url(address) else os.path.abspath(os.path.expanduser(address))


def expand(pattern: str) -> list[str]:
    """The addresses that a pattern stands for: braces as in a{00..12}.tar and {a,b}.tar, then *, ? and [].

    Raises:
        UserError: nothing matches, or a name without *, ? and [] is missing.
    """
    named = _without_braces(pattern)
    plain = [one for one in named if not glob.has_magic(one.partition("://")[2] or one)]
    states = address_states([absolute(one) for one in plain]).tolist()
    exist = {one: any(state) for one, state in zip(plain, states, strict=True)}
    addresses: list[str] = []
    for one in named:
        if one not in exist:
            addresses += _glob(one)
        elif exist[one]:
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
    try:
        names = try_again(pattern, lambda: system.glob(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(pattern, error) from error
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
