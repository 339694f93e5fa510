"""SIGTERM and SIGINT end a command at once, or, while it trains, after the step and a checkpoint."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTED = 75  # exit status: rerun the same command to continue (EX_TEMPFAIL, which schedulers retry)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 1.0  # seconds in which further signals of one Ctrl-C may arrive

_at_once: list[Callable] = []  # handlers that `watch_signals` calls
_flagfile: list[str] = []  # of the run of this process


def set_flagfile(path: os.PathLike | str | None) -> None:
    """Sets the flagfile that continues the run of this process; None: it has none."""
    _flagfile[:] = [] if path is None else [os.fspath(path)]


def way_to_go_on(command: str) -> str:
    """How the user goes on after an interruption, in words. command: a module such as simsiam_tf.pretrain."""
    if not _flagfile:
        return "Rerun the same command to go on."
    return f"To go on: python -m {command} --flagfile={shlex.quote(_flagfile[0])}"


@contextlib.contextmanager
def handle_signals(
    handler: Callable[[int, Any], None], afterwards: Any = None, at_once: bool = False
) -> Iterator[None]:
    """Calls `handler` for SIGTERM and SIGINT within the block. Does nothing outside the main thread.

    afterwards: the handler of both after the block; the former ones if None. at_once: whether `watch_signals`
    may call it in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _at_once.extend([handler] * at_once)
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former if afterwards is None else afterwards)
        if at_once:
            _at_once.remove(handler)


@contextlib.contextmanager
def watch_signals() -> Iterator[None]:
    """Calls handlers that act at once as soon as their signal arrives, in a thread of its own.

    Python itself calls a handler between two operations of the main thread, each of which may take a minute:
    a batch of an evaluation, a search, a compilation. For the main thread; does nothing in others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        while number := os.read(reading, 1):
            handler = signal.getsignal(number[0])
            if callable(handler) and handler in _at_once:
                handler(number[0], None)

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        os.close(writing)
        thread.join()
        os.close(reading)


def _forget_watcher() -> None:
    """In a forked process, whose signals must not be taken for its parent's."""
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_watcher)


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
        acts = self.seen is None
        with handle_signals(self._act if acts else self._note, at_once=acts):
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
