"""Workers meet before TensorFlow starts, so that waiting has a deadline, a name and an end.

TensorFlow's own start waits for ever for a worker that never comes, holds Python meanwhile and
swallows SIGTERM. Here the first worker listens at its own address, the others call it, and all go
on once all have called.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from simsiam_tf.distributed import ports
from simsiam_tf.runtime.errors import LostWorker, UserError

CALL_SECONDS = 0.5  # between calls to a first worker that does not answer yet
STARTS_SECONDS = 30  # that TensorFlow's own start may take once all have met
MESSAGE_BYTES = 64
_WATCH = """
import os, select, signal, sys
if not select.select([0], [], [], float(sys.argv[2]))[0]:
    os.write(2, sys.argv[3].encode())
    os.kill(int(sys.argv[1]), signal.SIGKILL)
"""


def wait_for_all(addresses: Sequence[str], index: int, seconds: float) -> None:
    """Returns once all workers have called this function.

    Args:
        addresses: HOST:PORT of every worker, the same on all; the first one's must be reachable.
        index: of this worker.
        seconds: how long to wait.

    Raises:
        LostWorker: some have not come; the line names them.
        UserError: this worker's own address is in use.
    """
    deadline = time.monotonic() + seconds
    if index == 0:
        _receive(addresses, deadline, seconds)
    else:
        _call(addresses, index, deadline, seconds)


def _receive(addresses: Sequence[str], deadline: float, seconds: float) -> None:
    """The first worker's part: to wait for all, then to tell all."""
    host, _, port = addresses[0].rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    own = str(ports.listen_addresses(host)[0]) if ports.listen_addresses(host) else ""  # "": every interface
    try:
        listener = socket.create_server((own, int(port)), family=family)
    except OSError as error:
        raise UserError(
            f"worker 0 cannot listen at its address {addresses[0]} ({error.strerror}). "
            "Give it another port in TF_CONFIG, on all workers."
        ) from error
    known: dict[int, socket.socket] = {}
    with listener, selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        while len(known) < len(addresses) - 1 and time.monotonic() < deadline:
            for key, _ in waiting.select(min(1.0, max(0.0, deadline - time.monotonic()))):
                if key.fileobj is listener:
                    caller, _ = listener.accept()
                    waiting.register(caller, selectors.EVENT_READ)
                    continue
                worker = _told(key.fileobj, len(addresses))
                gone = [i for i, s in known.items() if s is key.fileobj]
                if worker is None:  # it has ended, or is none of ours
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
                    for i in gone:
                        del known[i]
                else:
                    known[worker] = key.fileobj
        missing = [i for i in range(1, len(addresses)) if i not in known]
        for caller in known.values():
            with caller, contextlib.suppress(OSError):
                caller.sendall(json.dumps(missing).encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES))
    if missing:
        raise _missed(addresses, missing, seconds)


def _told(caller: socket.socket, count: int) -> int | None:
    """The number of the worker that calls; None where it has ended or is none of this run."""
    try:
        index, of = json.loads(caller.recv(MESSAGE_BYTES))
        return index if of == count and 0 < index < count else None
    except (OSError, ValueError, TypeError):
        return None


def _call(addresses: Sequence[str], index: int, deadline: float, seconds: float) -> None:
    """Another worker's part: to call the first until it says that all are there."""
    host, _, port = addresses[0].rpartition(":")
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as first:
                first.sendall(json.dumps([index, len(addresses)]).encode())
                first.settimeout(max(1.0, deadline + 2 - time.monotonic()))
                missing = json.loads(first.recv(MESSAGE_BYTES))
        except (OSError, ValueError):  # not there yet, or ended before all were there
            time.sleep(CALL_SECONDS)
            continue
        if not missing:
            return
        raise _missed(addresses, missing, seconds)
    raise _missed(addresses, [0], seconds)


def _missed(addresses: Sequence[str], missing: Sequence[int], seconds: float) -> LostWorker:
    names = ", ".join(f"worker {i} ({addresses[i]})" for i in missing)
    return LostWorker(
        f"strategy=multi_worker: {names} did not join within {seconds / 60:g} minutes "
        "(`join_minutes`). Start the same command on all workers."
    )


@contextlib.contextmanager
def start_deadline(addresses: Sequence[str], index: int) -> Iterator[None]:
    """TensorFlow's own start, which nothing within this process can interrupt.

    A watching process ends this one after STARTS_SECONDS. SIGTERM, for which TensorFlow puts in a
    handler of its own, waits until Python's are back.
    """
    others = ", ".join(f"worker {i} ({a})" for i, a in enumerate(addresses) if i != index)
    line = (
        f"worker {index}: {others}: one has ended while TensorFlow was starting "
        f"({STARTS_SECONDS} s). Rerun the same command on all workers.\n"
    )
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    watch = subprocess.Popen(
        [sys.executable, "-S", "-c", _WATCH, str(os.getpid()), str(STARTS_SECONDS), line],
        stdin=subprocess.PIPE,
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        yield
    finally:
        watch.communicate()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
