"""The standard streams of the process, whose errors never end a command."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

DEVICES = (0, 1, 2)  # descriptors of stdin, stdout, stderr


class SafeStream:
    """A text stream that never raises, even if its reader has gone or its disk is full.

    Characters that its encoding lacks are written as escapes.

    trouble: the last error; None if all was written.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.trouble: Exception | None = None
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._keep_trouble():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._keep_trouble():
            self._stream.flush()

    @contextlib.contextmanager
    def _keep_trouble(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # closed; or a signal came during a write
            self.trouble = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stderr() -> SafeStream:
    """Returns sys.stderr as a stream that never raises."""
    return _safe_stream(sys.stderr)


@functools.lru_cache(maxsize=2)  # tqdm knows a stream by its identity
def _safe_stream(stream: Any) -> SafeStream:
    if isinstance(stream, SafeStream):
        return stream
    return SafeStream(stream or open(os.devnull, "w", encoding="utf-8"))  # None: closed at the start


@contextlib.contextmanager
def safe_streams(afterwards: bool) -> Iterator[SafeStream]:
    """Replaces sys.stdout and sys.stderr by a `SafeStream` each; yields that of stdout.

    afterwards: whether they stay in place at the end; then nothing is left in them that would make Python
        report an error when it ends.
    """
    for descriptor in DEVICES:  # the next file that is opened would get the number of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    out, err = map(_safe_stream, before)
    out.trouble = err.trouble = None  # forget that of an earlier command
    sys.stdout, sys.stderr = out, err  # pyright: ignore[reportAttributeAccessIssue]
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
    """Says what is wrong with a stream; None if nothing is, or if its reader has gone."""
    error = stream.trouble
    left = isinstance(error, BrokenPipeError) or getattr(error, "errno", None) == errno.EPIPE
    return None if error is None or left else getattr(error, "strerror", None) or str(error)
