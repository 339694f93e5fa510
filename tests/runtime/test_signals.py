"""Signals: noted while training, as they were before while all is saved, and twice means now."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from simsiam_tf.runtime import signals


@pytest.fixture
def former():
    """What signals did before: raise, so that a test sees it."""
    seen = []

    def handler(number, frame):
        seen.append(number)
        raise InterruptedError

    with signals.handle_signals(handler):
        yield seen


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_noted_while_training_and_as_before_otherwise(former):
    said = []
    waiting = signals.DeferredSignals(said.append)
    with waiting.defer_signals():
        assert waiting.seen is None
        with pytest.raises(InterruptedError), waiting.act_at_once():
            send()
        assert waiting.seen is None
        send()
        assert waiting.seen == signal.SIGTERM and "SIGTERM: finishing the step" in said[0]
        with waiting.act_at_once():  # the step after which it ends: nothing new may stop that
            send()
        send()
        assert len(said) == 1
    with pytest.raises(InterruptedError):
        send()
    assert former == [signal.SIGTERM] * 2


def test_a_second_ctrl_c_does_not_wait(former, monkeypatch):
    waiting = signals.DeferredSignals(lambda text: None)
    with waiting.defer_signals():
        send(signal.SIGINT)
        send(signal.SIGINT)  # at once: a terminal's own repetition
        monkeypatch.setattr(signals, "PATIENCE", -1.0)
        send()  # a scheduler's repetition is no impatience
        with pytest.raises(InterruptedError):
            send(signal.SIGINT)


def test_handlers_come_back(former):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), signals.DeferredSignals(print).defer_signals():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_touched():
    ends = []

    def work():
        with signals.DeferredSignals(print).defer_signals():
            ends.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ends == [before]


BUSY = """
import hashlib, os, signal, sys, time
from simsiam_tf.runtime import signals
def leave(number, frame):
    os.write(1, b"left\\n")
    os._exit(75)
with signals.handle_signals(leave, at_once=True), signals.watch_signals():
    if sys.argv[1] == "child":
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
            os.kill(os.getpid(), signal.SIGTERM)
        os.waitpid(child, 0)
        time.sleep(0.3)
        os._exit(3)
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 3 * 10**7)  # one operation, longer than ten seconds
"""


def begin_busy_process(kind):
    return subprocess.Popen([sys.executable, "-c", BUSY, kind], stdout=subprocess.PIPE, text=True)


def test_a_signal_during_a_long_operation_ends_the_process_at_once():
    process = begin_busy_process("at_once")
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # so that the operation has begun
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.communicate(timeout=60)[0] == "left\n" and process.returncode == 75
    assert time.monotonic() - began < 5


def test_a_signal_of_a_forked_process_is_not_taken_for_its_parents():
    process = begin_busy_process("child")
    assert process.communicate(timeout=60)[0] == "" and process.returncode == 3


def test_a_deferred_signal_stays_deferred_where_signals_are_watched(former):
    waiting = signals.DeferredSignals(lambda text: None)
    with signals.watch_signals(), waiting.defer_signals():
        send()
        time.sleep(0.1)
        assert waiting.seen == signal.SIGTERM and former == []


def test_the_way_to_go_on_names_the_flagfile_of_the_run():
    signals.set_flagfile(None)  # another test may have run a command
    assert signals.way_to_go_on("simsiam_tf.pretrain") == "Rerun the same command to go on."
    signals.set_flagfile("my runs/config.flags")
    try:
        expected = "To go on: python -m simsiam_tf.pretrain --flagfile='my runs/config.flags'"
        assert signals.way_to_go_on("simsiam_tf.pretrain") == expected
    finally:
        signals.set_flagfile(None)


def test_handlers_that_do_not_act_at_once_are_left_to_the_main_thread():
    seen = []
    with (
        signals.handle_signals(lambda *args: seen.append(threading.current_thread())),
        signals.watch_signals(),
    ):
        send()
        time.sleep(0.1)
    assert seen == [threading.main_thread()]
