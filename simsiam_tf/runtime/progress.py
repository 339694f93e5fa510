"""Progress of anything that takes longer than a few seconds: a bar on a terminal, lines in a file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from simsiam_tf.runtime import terminal

DELAY = 2.0  # seconds before a bar appears
BETWEEN = 20.0  # seconds between two lines in a file


def bar(items: Iterable | None, description: str | None = None, **options: Any) -> tqdm:
    """Returns a tqdm for a terminal; elsewhere (a file, CI) one that writes a plain line now and then.

    options: arguments of tqdm.
    """
    stream = terminal.stderr()
    if stream.isatty():
        return _Bar(items, description, **{"file": stream, "delay": DELAY, "mininterval": 0.5, **options})
    fixed = {"leave": True, "dynamic_ncols": False, "ncols": 0, "delay": 1e-9}
    seldom = {"mininterval": DELAY, "maxinterval": BETWEEN}
    return _Lines(items, description, **{"file": stream, **seldom, **options, **fixed})


def advance(shown: tqdm, count: int, starts: bool = False) -> None:
    """Moves a bar by so many items. starts: as its begin, whose time is no part of its rate and time left."""
    if not starts:
        shown.update(count)
        return
    if not shown.disable:
        shown.n = shown.initial = shown.last_print_n = shown.n + count
        shown.unpause()


def say(text: str) -> None:
    """Writes a line to stderr; on a terminal, above the bars."""
    stream = terminal.stderr()
    if stream.isatty():
        tqdm.write(text, file=stream)
    else:
        print(text, file=stream, flush=True)


@contextlib.contextmanager
def announced(text: str) -> Iterator[None]:
    """Writes a line to stderr once the block takes longer than `DELAY`."""
    timer = threading.Timer(DELAY, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Bar(tqdm):
    """A tqdm that appears after `DELAY`, also where the first item takes longer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._appears = threading.Timer(DELAY, self._appear)
        self._appears.daemon = True
        if not self.disable:
            self._appears.start()

    def _appear(self) -> None:
        with self.get_lock():
            if not self.disable and self.n == self.initial:
                self.refresh(nolock=True)

    def close(self) -> None:
        if hasattr(self, "_appears"):  # else the constructor failed
            self._appears.cancel()
        super().close()


class _Lines(_Bar):
    """A bar of complete lines, without carriage returns and cursor movements.

    The first is written after `DELAY`; the time between two grows with the time that has passed, up to
    `BETWEEN`.
    """

    _written: int | None = None  # items at the last line

    def __iter__(self) -> Iterator[Any]:
        """The items. tqdm's own takes the time between two lines to be constant."""
        try:
            for item in self.iterable:  # pyright: ignore[reportOptionalIterable]
                yield item
                self.update()
        finally:
            self.close()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Writes a line, unless there is nothing new."""
        line = str(self).strip()
        if line and self.n != self._written:
            self._written = self.n
            print(line, file=self.fp, flush=True)
            if self.mininterval:
                passed = self._time() - self.start_t  # pyright: ignore[reportAttributeAccessIssue]
                self.mininterval = min(BETWEEN, max(DELAY, 2 * passed))
        return True

    def close(self) -> None:
        """Writes the last line, if there were others."""
        if not getattr(self, "disable", True):
            self._appears.cancel()
            self.disable = True
            self._decr_instances(self)  # pyright: ignore[reportAttributeAccessIssue]
            if self._written is not None:
                self._ema_dt = lambda: None  # so that tqdm shows the mean rate
                self.display()
