"""Killed anywhere, rerun, and the end is the same to the bit: variables, records, ids, export."""

import itertools
import random
import signal
import time

import numpy as np
import pytest
from harness import DONE, INTERRUPTED, STEPS, Run, check_finished, differing

REPLICAS = 1e-3  # of its largest value, that a variable may differ by after ten steps on other replicas
GRACE = 10.0  # seconds from a signal to the end of the process, for a network of this size


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("reference") / "run")
    check_finished(run, run.go())
    return run


@pytest.fixture(scope="module")
def monitored(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("monitored") / "run", *MONITOR)
    ended = run.go()
    check_finished(run, ended)
    run.took = ended.seconds
    return run


MONITOR = ("--monitor=digits", "--knn_every=1", "--knn_images=600", "--epochs=3")
# Calls at which a process dies; every fourth in one work folder, one process after the other.
CHAIN = [
    "step:2", "step:7", "write:2", "write:1:after", "verify:1:after", "fsync:2", "fsync:4:after",
    "fsync:6", "rename:1", "rename:1:after", "rename:2", "rename:3:after", "replace:1", "record:1:after",
    "rmtree:2", "rmtree:5:after", "record:2", "replace:4:after", "export:1", "export:1:after",
]  # fmt: skip
SHORT = ["rename:2", "record:3:after"]


def killed_in_turn(run, faults):
    """Kills a process at each fault in turn, then lets one finish; how many were killed."""
    killed = 0
    for fault in faults:
        ended = run.go(fault)
        assert ended.status in (-signal.SIGKILL, DONE), (fault, ended.said)
        killed += ended.status == -signal.SIGKILL
    ended = run.go()
    assert ended.status == DONE, ended.said
    return killed


def assert_same(run, reference):
    assert differing(run.left(), reference.left()) == []
    assert not run.leftovers()


@pytest.mark.slow
def test_killed_twice_the_end_is_the_same_to_the_bit(reference, tmp_path):
    run = Run(tmp_path / "run")
    assert killed_in_turn(run, SHORT) == len(SHORT)
    assert_same(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["data", "optimizer"])
def test_the_harness_sees_a_resume_that_is_wrong(reference, tmp_path, control):
    run = Run(tmp_path / "run")
    assert run.go("step:12").status == -signal.SIGKILL
    assert run.go(f"control:{control}").status == DONE
    wrong = differing(run.left(), reference.left())
    assert any(n.startswith("variable") for n in wrong) and any(n.startswith("record") for n in wrong)
    assert any(n.startswith("ids") for n in wrong) == (control == "data")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_killed_at_every_kind_of_call(reference, tmp_path, part):
    run = Run(tmp_path / "run")
    faults = CHAIN[part::4]
    assert killed_in_turn(run, faults) == len(faults)
    assert_same(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_from_outside_at_any_moment(reference, tmp_path, seed):
    """Eight times: at a step's record and up to a few steps' time later."""
    run, rng = Run(tmp_path / "run"), random.Random(seed)
    killed = 0
    while killed < 8:
        process = run.start()
        if run.reach(process, max(0, run.newest_step()) + rng.randint(1, 3)):
            time.sleep(rng.random() * 0.15)
        process.kill()
        assert run.finish(process).status == -signal.SIGKILL
        killed += 1
    assert run.go().status == DONE
    assert_same(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [
    ["evaluate:1", "evaluate:1:after", "evaluate:2", "evaluate:3:after"],
    # In the last epoch's evaluation, around the export, in the final one, before the card has it.
    ["evaluate:4", "export:1", "export:1:after", "evaluate:1", "evaluate:2:after", "replace:4"],
])  # fmt: skip
def test_killed_around_the_monitor(monitored, tmp_path, faults):
    run = Run(tmp_path / "run", *MONITOR)
    assert killed_in_turn(run, faults) == len(faults)
    assert_same(run, monitored)


def terminated(run, after):
    """SIGTERM so many seconds after signals are handled, or at a step's record.

    Returns its end, seconds until that, and whether all was done before the signal.
    """
    process = run.start()
    if after < 0:
        run.reach(process, max(0, run.newest_step()) - after)
    else:
        run.listens(process)
        time.sleep(after)
    done = (run.workdir / "export" / "backbone.keras").exists()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    ended = run.finish(process)
    return ended, time.monotonic() - began, done


@pytest.mark.slow
def test_twenty_signals_and_no_step_repeated(monitored, tmp_path):
    run, rng = Run(tmp_path / "run", *MONITOR), random.Random(0)
    longest = min(12, 0.7 * monitored.took)  # a fast machine's run ends early
    signals = 0
    for n in itertools.count():
        after = -rng.randint(1, 3) if n % 2 else rng.uniform(0, longest)
        ended, seconds, done = terminated(run, after)
        assert ended.status == INTERRUPTED or (done and ended.status == DONE), (n, after, ended.said)
        assert seconds < GRACE, (n, after, seconds)
        signals += not done
        if signals == 20:
            break
        if run.newest_step() >= STEPS - 4:  # start another, so that all 20 find something to end
            assert run.go().status == DONE
            assert_same(run, monitored)
            assert [step for step, _ in run.consumed()] == list(range(STEPS)), "a step was repeated"
            run = Run(tmp_path / f"run{n}", *MONITOR)
    assert run.go().status == DONE
    assert_same(run, monitored)
    assert [step for step, _ in run.consumed()] == list(range(STEPS)), "a step was repeated"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "tfds"])
def test_other_data_resumes_to_the_bit(kind, pictures, tfds_set, tmp_path):
    more = {
        "folder": (f"--data=folder:{pictures}",),
        "tfds": ("--data=tfds:tiny_pictures", f"--data_dir={tfds_set}"),
    }[kind]
    more = (*more, "--batch_size=32", "--image_size=24", "--epochs=4")
    whole = Run(tmp_path / "whole", *more)
    check_finished(whole, whole.go(), 12)
    run = Run(tmp_path / "run", *more)
    assert killed_in_turn(run, ["step:3", "fsync:6", "step:2"]) == 3
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_replicas_goes_on_with_the_same_images(tmp_path, before, after):
    """The ids are the same; the weights agree to what rounding makes of twenty steps."""
    small = ("--base_lr=0.02", "--epochs=2")
    whole, run = Run(tmp_path / "whole", *small), Run(tmp_path / "run", *small)
    check_finished(whole, whole.go(), 22)
    on = {1: ("--strategy=one_device",), 2: ("--strategy=mirrored",)}
    assert run.go(f"step:{12 * before}", *on[before], env={"CPUS": str(before)}).status == -signal.SIGKILL
    ended = run.go("none", *on[after], env={"CPUS": str(after)})
    assert ended.status == DONE, ended.said
    assert f"was made with {before} replicas, now {after}: the same images and views follow" in ended.said
    assert run.last_ids() == whole.last_ids()
    a, b = whole.variables(), run.variables()
    assert {n: v.shape for n, v in a.items()} == {n: v.shape for n, v in b.items()}
    floats = [n for n in a if a[n].dtype.kind == "f" and a[n].size]  # no record is under way at the end
    away = max(np.abs(a[n] - b[n]).max() / max(np.abs(a[n]).max(), 1e-3) for n in floats)
    assert 0 < away < REPLICAS, away
