"""Progress on anything that takes longer than a few seconds: a bar on a terminal, lines in a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from simsiam_tf.runtime import terminal

DELAY = 2.0  # seconds before a bar appears
BETWEEN = 20.0  # seconds between two lines where stderr is no terminal


def bar(what: Iterable | None, description: str | None = None, **options: Any) -> tqdm:
    """tqdm on a terminal; elsewhere (a file, CI) the same as plain lines, one now and then.

    options: of tqdm.
    """
    stream = terminal.stderr()
    if stream.isatty():
        return tqdm(what, description, **{"file": stream, "delay": DELAY, "mininterval": 0.5, **options})
    fixed = {"leave": True, "dynamic_ncols": False, "ncols": 0, "delay": 1e-9}
    seldom = {"mininterval": BETWEEN, "maxinterval": BETWEEN}
    return Lines(what, description, **{"file": stream, **seldom, **options, **fixed})


def say(text: str) -> None:
    """Writes a line to stderr, above the bars that a terminal shows."""
    stream = terminal.stderr()
    (tqdm if stream.isatty() else Lines).write(text, file=stream)


class Lines(tqdm):
    """A bar as lines, each of which ends: no carriage return, no cursor moved."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Writes a line, unless the last one said the same."""
        del pos
        line = str(self) if msg is None else msg
        if line.strip() and self.n != getattr(self, "_written", 0):
            self._written = self.n
            self.fp.write(line.strip() + "\n")
            self.fp.flush()
        return True

    @classmethod
    def write(cls, s: str, file: Any = None, end: str = "\n", nolock: bool = False) -> None:
        """Writes a line of its own."""
        del nolock
        file = file or terminal.stderr()
        file.write(s + end)
        file.flush()

    def clear(self, nolock: bool = False) -> None:
        """Nothing: a line stays."""

    def close(self) -> None:
        """Writes the last line where others came before it."""
        if not getattr(self, "disable", True):
            self.disable = True
            self._decr_instances(self)
            if hasattr(self, "_written"):
                self._ema_dt = lambda: None  # the rate over all
                self.display()
