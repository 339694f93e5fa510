"""Elements that arrive in any order come out sorted; late ones are made here (`data/service/reorder.py`)."""

import threading

import pytest
import tensorflow as tf

from simsiam_tf.data.service import reorder
from simsiam_tf.data.service.reorder import OrderedElements
from simsiam_tf.runtime.errors import LostWorker, UserError
from simsiam_tf.training import pretraining


def asked(sent, **kwargs):
    """OrderedElements with the given jobs, one after the other; each is a function of (first, token)."""
    jobs = iter(sent)
    made = lambda first, token: next(jobs)(first, token)
    return OrderedElements(
        "data_service=a:1", made, lambda n: f"here {n}", kwargs.pop("answers", lambda: True), 8
    )


def numbered(*numbers, then=()):
    def job(first, token):
        yield from ((token, n, f"there {n}") for n in numbers)
        yield from then

    return job


def waits(numbers):
    """A job that sends these numbers, then waits without an end."""

    def job(first, token):
        yield from numbered(*numbers)(first, token)
        threading.Event().wait(30)

    return job


def test_elements_come_out_sorted():
    arrived = [3, 1, 0, 2, 2, 0, 5, 4]
    stream = asked([numbered(*arrived)])
    assert [stream.get(n) for n in range(6)] == [f"there {n}" for n in range(6)]


def test_late_elements_alone_are_made_here(monkeypatch):
    monkeypatch.setattr(reorder, "LATE_SECONDS", 0.5)
    stream = asked([waits([1, 2, 4, 5])])
    assert [n for n in range(6) if stream.get(n) == f"here {n}"] == [0, 3]


def test_at_most_max_waiting_elements_wait(monkeypatch):
    stream = asked([waits(range(1, 40))])
    assert stream.get(0) == "here 0"
    assert len(stream.waiting) == 8
    assert [stream.get(n) for n in range(1, 20)] == [f"there {n}" for n in range(1, 20)]


def test_elements_of_another_job_are_refused():
    foreign = lambda first, token: iter([(token + 1, first, "another run's")])
    stream = asked([foreign, lambda first, token: numbered(*range(first, 9))(first, token)])
    assert stream.get(4) == "there 4"


def test_a_failed_job_is_started_again_where_it_ended_a_few_times():
    firsts = []

    def job(first, token):
        firsts.append(first)
        yield from numbered(first, first + 2)(first, token)
        raise tf.errors.NotFoundError(None, None, "{{node x}} /photos/1.jpg; No such file")

    stream = asked([job] * 9)
    assert [stream.get(n) for n in (0, 1)] == ["there 0", "there 1"]
    with pytest.raises(UserError, match=r"^data_service=a:1: .* failed: /photos/1.jpg; No such"):
        for n in range(2, 9):
            stream.get(n)
    assert firsts == [0, 1, 2]


@pytest.mark.parametrize(
    ("answers", "expected"), [(False, "dispatcher has been gone"), (True, "no data worker has")]
)
def test_silence_ends_with_status_75(monkeypatch, answers, expected):
    monkeypatch.setattr(reorder, "DISPATCHER_SECONDS", 0.5)
    monkeypatch.setattr(reorder, "WORKERS_SECONDS", 2.5)
    stream = asked([waits([0])], answers=lambda: answers)
    stream.get(0)
    with pytest.raises(LostWorker, match=f"{expected}.*rerun the same command") as caught:
        stream.get(1)
    assert caught.value.status == pretraining.INTERRUPTED
