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
        return tqdm(items, description, **{"file": stream, "delay": DELAY, "mininterval": 0.5, **options})
    fixed = {"leave": True, "dynamic_ncols": False, "ncols": 0, "delay": 1e-9}
    seldom = {"mininterval": BETWEEN, "maxinterval": BETWEEN}
    return _Lines(items, description, **{"file": stream, **seldom, **options, **fixed})


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


class _Lines(tqdm):
    """A tqdm that writes complete lines, without carriage returns and cursor movements."""

    _written = 0  # items at the last line

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Writes a line, unless there is nothing new."""
        line = str(self).strip()
        if line and self.n != self._written:
            self._written = self.n
            print(line, file=self.fp, flush=True)
        return True

    def close(self) -> None:
        """Writes the last line, if there were others."""
        if not getattr(self, "disable", True):
            self.disable = True
            self._decr_instances(self)  # pyright: ignore[reportAttributeAccessIssue]
            if self._written:
                self._ema_dt = lambda: None  # so that tqdm shows the mean rate
                self.display()
