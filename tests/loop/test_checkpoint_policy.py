"""When a run saves a checkpoint, and that trouble with the disk is survived and not hidden."""

import logging

import pytest
import tensorflow as tf

from simsiam_tf.loop import checkpoint_policy
from simsiam_tf.runtime.errors import UserError


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


class Disk:
    """Stands in for the work folder and its checkpoints. takes: seconds of a checkpoint."""

    def __init__(self, clock):
        self.clock, self.takes, self.full, self.removed, self.saved = clock, 1.0, False, False, []
        self.path = "run"

    def sync(self):
        if self.full:
            raise OSError(28, "No space left on device")

    def save(self, step, progress):
        self.clock.now += self.takes
        self.saved.append(step)

    def remake_if_removed(self):
        removed, self.removed = self.removed, False
        return removed


@pytest.fixture
def made(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(checkpoint_policy, "time", clock)
    monkeypatch.setattr(logging.getLogger("simsiam_tf"), "propagate", True)
    disk = Disk(clock)
    return checkpoint_policy.CheckpointPolicy(disk, disk, disk, 10, 0), disk, clock, caplog


def test_by_the_clock_and_before_evaluations(made):
    run, _, clock, _ = made
    assert not run.due(False, False) and run.due(False, True)
    clock.now = 601
    assert run.due(False, False)


def test_at_the_ends_of_epochs_that_are_long_enough(made):
    run, disk, clock, _ = made
    disk.takes = 2.0
    clock.now = 10
    assert run.due(True, False)  # what a checkpoint costs is not known yet
    run.save(5, {}, is_last=False)
    clock.now += 150
    assert not run.due(True, False)
    clock.now += 60  # 210 s for 2
    assert run.due(True, False)


def test_a_full_disk_is_said_and_tried_again_after_a_minute(made):
    run, disk, clock, said = made
    clock.now, disk.full = 700, True
    assert run.due(False, False)
    run.save(5, {}, is_last=False)
    assert "step 5 could not be written (No space left" in said.messages[0] and run.step == 0
    assert not run.due(True, True)
    clock.now += 61
    assert run.due(False, False)
    with pytest.raises(UserError, match="Make room and rerun"):
        run.save(6, {}, is_last=True)
    disk.full = False
    run.save(7, {}, is_last=True)
    assert disk.saved == [7] and run.step == 7


def test_a_removed_folder_is_saved_to_at_once(made):
    run, disk, _, said = made
    disk.removed = True
    assert run.due(False, False) and "was removed" in said.messages[0]
    assert not run.due(False, False)


def test_tensorflow_s_long_errors_keep_what_they_end_with(made):
    run, disk, _, said = made
    path = "/a/long/path" * 30
    text = f"{{{{function_node __wrapped__SaveV2}}}} {path}; No space left on device [Op:SaveV2]"
    disk.save = lambda *args: (_ for _ in ()).throw(tf.errors.ResourceExhaustedError(None, None, text))
    run.save(5, {}, is_last=False)
    assert (
        "No space left on device" in said.messages[0]
        and "function_node" not in said.messages[0]
        and len(said.messages[0]) < 400
    )
