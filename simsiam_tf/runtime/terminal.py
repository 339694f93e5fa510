"""Standard streams whose errors never end a command."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class SafeStream:
    """A text stream whose writes never raise, even if its reader has gone or its disk is full.

    Characters that its encoding lacks are written as escapes.

    error: the last error of a write; None if there was none.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._keep_error(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._keep_error(self._stream.flush)

    def _keep_error(self, function: Callable, *args: str) -> None:
        try:
            function(*args)
        except (OSError, ValueError, RuntimeError) as error:  # closed; or a signal came during a write
            self.error = error

    def problem(self) -> str | None:
        """Says what is wrong with the stream; None if nothing is, or if its reader has gone."""
        if self.error is None or getattr(self.error, "errno", None) == errno.EPIPE:
            return None
        return getattr(self.error, "strerror", None) or str(self.error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stderr() -> SafeStream:
    """Returns sys.stderr as a `SafeStream`."""
    return _safe_stream(sys.stderr)


@functools.lru_cache(maxsize=2)  # the same object for the same stream, as tqdm expects
def _safe_stream(stream: Any) -> SafeStream:
    if isinstance(stream, SafeStream):
        return stream
    return SafeStream(stream or open(os.devnull, "w", encoding="utf-8"))  # None: closed at the start


@contextlib.contextmanager
def safe_streams(process_ends: bool) -> Iterator[SafeStream]:
    """Replaces sys.stdout and sys.stderr by a `SafeStream` each; yields the one of stdout.

    process_ends: whether both stay in place after the block. A stream that failed then leads to the null
        device, so that Python reports no error when it ends.
    """
    for descriptor in (0, 1, 2):  # else the next file to be opened would get the number of a closed stream
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    out, err = map(_safe_stream, before)
    out.error = err.error = None  # forget the error of an earlier command
    sys.stdout, sys.stderr = out, err  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield out
    finally:
        for descriptor, stream in ((1, out), (2, err)):
            stream.flush()
            if process_ends and stream.error:
                with contextlib.suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if not process_ends:
            sys.stdout, sys.stderr = before
