"""Signals: noted while training, as they were before while all is saved, and twice means now."""

import os
import signal
import threading

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
