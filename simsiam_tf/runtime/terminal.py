"""The process's standard streams: trouble with them ends nothing."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

DEVICES = (0, 1, 2)  # descriptors of stdin, stdout, stderr


class SafeStream:
    """A text stream whose reader may go away and whose disk may be full.

    Characters that its encoding lacks are written as escapes.

    trouble: the last error; None while all was written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.trouble = stream, None
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # closed; or a signal came during a write
            self.trouble = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stderr() -> SafeStream:
    """sys.stderr, as a stream that never raises."""
    return _safe_stream(sys.stderr)


@functools.lru_cache(maxsize=2)  # tqdm knows a stream by its identity
def _safe_stream(stream: Any) -> SafeStream:
    if isinstance(stream, SafeStream):
        return stream
    return SafeStream(stream or open(os.devnull, "w", encoding="utf-8"))  # None: closed at the start


@contextlib.contextmanager
def safe_streams(afterwards: bool) -> Iterator[SafeStream]:
    """Puts `SafeStream` in the place of sys.stdout and sys.stderr; gives that of stdout.

    afterwards: leave them there, and nothing in them for Python to complain of when it ends.
    """
    for descriptor in DEVICES:  # a closed one would go to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    out, err = map(_safe_stream, before)
    out.trouble = err.trouble = None  # of an earlier command in this process
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        for descriptor, stream in ((1, out), (2, err)):
            stream.flush()
            if afterwards and stream.trouble:
                with contextlib.suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if not afterwards:
            sys.stdout, sys.stderr = before


def stream_problem(stream: SafeStream) -> str | None:
    """What is wrong with a stream, in words; None where nothing is, or where its reader has left."""
    error = stream.trouble
    left = isinstance(error, BrokenPipeError) or getattr(error, "errno", None) == errno.EPIPE
    return None if error is None or left else getattr(error, "strerror", None) or str(error)
