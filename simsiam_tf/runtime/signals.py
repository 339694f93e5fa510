"""SIGTERM and SIGINT end a command at once, or, while it trains, after the step and a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTED = 75  # exit status: rerun the same command to continue (EX_TEMPFAIL, which schedulers retry)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 1.0  # seconds in which further signals of one Ctrl-C may arrive


@contextlib.contextmanager
def handle_signals(handler: Callable[[int, Any], None], afterwards: Any = None) -> Iterator[None]:
    """Calls `handler` for SIGTERM and SIGINT within the block. Does nothing outside the main thread.

    afterwards: the handler of both after the block; the former ones if None.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former if afterwards is None else afterwards)


@contextlib.contextmanager
def keep_handlers() -> Iterator[None]:
    """Restores the handlers of SIGTERM and SIGINT after the block, in which a library sets its own."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, former in before.items():
                signal.signal(number, former)


class DeferredSignals:
    """Notes a signal instead of acting on it, so that the step ends and a checkpoint is saved.

    A second Ctrl-C, more than PATIENCE seconds later, acts at once.

    seen: number of the first signal, or None. say: writes a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seen: int | None = None
        self._say, self._seen_at = say, 0.0
        self._former: dict[int, Any] = {}

    @contextlib.contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Notes signals within the block."""
        self._former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        with handle_signals(self._note):
            yield

    @contextlib.contextmanager
    def act_at_once(self) -> Iterator[None]:
        """Acts on signals at once, unless one was noted. For use in `defer_signals`, with nothing unsaved."""
        with handle_signals(self._act if self.seen is None else self._note):
            yield

    def _note(self, number: int, frame: Any) -> None:
        if self.seen is None:
            self.seen, self._seen_at = number, time.monotonic()
            self._say(f"{signal.Signals(number).name}: finishing the step, then saving a checkpoint")
        elif number == signal.SIGINT and time.monotonic() - self._seen_at > PATIENCE:
            self._act(number, frame)

    def _act(self, number: int, frame: Any) -> None:
        former = self._former[number]
        if callable(former):
            former(number, frame)
        elif former != signal.SIG_IGN:
            raise KeyboardInterrupt
