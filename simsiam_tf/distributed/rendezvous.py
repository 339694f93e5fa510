"""Workers wait for each other before TensorFlow starts, until a deadline; an error names who is missing.

TensorFlow's own start waits for ever for a worker that never comes, blocks Python meanwhile and
swallows SIGTERM. Here the first worker listens at its own address, the others connect to it, and all
continue once all have connected.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from simsiam_tf.distributed import ports
from simsiam_tf.runtime.errors import LostWorker, UserError

CALL_SECONDS = 0.5  # between attempts to connect to the first worker
STARTS_SECONDS = 30  # the longest that TensorFlow's own start may take
MESSAGE_BYTES = 64  # the most that is sent at a time
_WATCHDOG = """
import os, select, signal, sys
if not select.select([0], [], [], float(sys.argv[2]))[0]:
    os.write(2, sys.argv[3].encode())
    os.kill(int(sys.argv[1]), signal.SIGKILL)
"""


def wait_for_all(addresses: Sequence[str], index: int, seconds: float) -> None:
    """Returns once all workers have called this function.

    Args:
        addresses: HOST:PORT of every worker, the same on all; the first one's must be reachable.
        index: number of this worker.
        seconds: how long to wait for the others.

    Raises:
        LostWorker: some workers have not joined; the message names them.
        UserError: this is the first worker, and it cannot listen at its address.
    """
    deadline = time.monotonic() + seconds
    missing = _receive(addresses, deadline) if index == 0 else _call(addresses, index, deadline)
    if missing:
        raise LostWorker(
            f"strategy=multi_worker: {_names(addresses, missing)} did not join within {seconds / 60:g} "
            "minutes (`join_minutes`). Start the same command on all workers."
        )


def _names(addresses: Sequence[str], indices: Iterable[int]) -> str:
    return ", ".join(f"worker {i} ({addresses[i]})" for i in indices)


def _receive(addresses: Sequence[str], deadline: float) -> list[int]:
    """Waits, as the first worker, for the others; tells them which are missing, and returns those."""
    host, _, port = addresses[0].rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    local = ports.listen_addresses(host)
    try:
        listener = socket.create_server((str(local[0]) if local else "", int(port)), family=family)
    except OSError as error:
        raise UserError(
            f"worker 0 cannot listen at its address {addresses[0]} ({error.strerror}). "
            "Give it another port in TF_CONFIG, on all workers."
        ) from error
    callers: dict[socket.socket, int | None] = {}  # → number of the worker, once it has sent that
    missing = others = set(range(1, len(addresses)))
    with listener:
        while missing and time.monotonic() < deadline:
            seconds = min(1.0, max(0.0, deadline - time.monotonic()))
            for ready in select.select([listener, *callers], [], [], seconds)[0]:
                if ready is listener:
                    callers[listener.accept()[0]] = None
                    continue
                callers[ready] = _worker_of(ready, len(addresses))
                if callers[ready] is None:  # it has ended, or is not a worker of this run
                    del callers[ready]
                    ready.close()
            missing = others - set(callers.values())
    named = sorted(missing)
    while len(json.dumps(named)) > MESSAGE_BYTES:  # of many, the first
        named.pop()
    message = json.dumps(named).encode().ljust(MESSAGE_BYTES)
    for caller in callers:
        with caller, contextlib.suppress(OSError):
            caller.sendall(message)
    return sorted(missing)


def _worker_of(caller: socket.socket, count: int) -> int | None:
    """Returns the number of the worker that has connected; None if it has ended or is not of this run."""
    try:
        index, of = json.loads(caller.recv(MESSAGE_BYTES))
        return index if of == count and 0 < index < count else None
    except (OSError, ValueError, TypeError):
        return None


def _call(addresses: Sequence[str], index: int, deadline: float) -> list[int]:
    """Connects to the first worker until it answers; returns the missing workers, [0] without an answer."""
    host, _, port = addresses[0].rpartition(":")
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as first:
                first.sendall(json.dumps([index, len(addresses)]).encode())
                first.settimeout(max(1.0, deadline + 2 - time.monotonic()))
                return json.loads(first.recv(MESSAGE_BYTES))
        except (OSError, ValueError):  # the first worker has not started, or ended too early
            time.sleep(CALL_SECONDS)
    return [0]


@contextlib.contextmanager
def start_deadline(addresses: Sequence[str], index: int) -> Iterator[None]:
    """Bounds TensorFlow's own start, which nothing within this process can interrupt.

    A watching process kills this one after STARTS_SECONDS. TensorFlow replaces Python's handler of SIGTERM
    meanwhile, so SIGTERM and SIGINT are held back until their handlers are restored.
    """
    others = _names(addresses, (i for i in range(len(addresses)) if i != index))
    line = (
        f"worker {index}: {others}: one has ended while TensorFlow was starting "
        f"({STARTS_SECONDS} s). Rerun the same command on all workers.\n"
    )
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    watchdog = subprocess.Popen(
        [sys.executable, "-S", "-c", _WATCHDOG, str(os.getpid()), str(STARTS_SECONDS), line],
        stdin=subprocess.PIPE,
    )
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    if masks:
        signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        yield
    finally:
        watchdog.communicate()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if masks:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
