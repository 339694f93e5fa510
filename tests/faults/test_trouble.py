"""Full disks, vanished folders, jumping clocks, two runs in one folder: no checkpoint is lost."""

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess

import pytest
import tensorflow as tf
from harness import DONE, STEPS, Run, check_finished, differing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("reference") / "run")
    check_finished(run, run.go())
    return run


def assert_same(run, reference):
    assert differing(run.left(), reference.left()) == []
    assert not run.leftovers()


@contextlib.contextmanager
def files_up_to(size):
    """No file of a process started here grows above so many bytes: a disk that is full for large ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_checkpoints_and_names_the_mend(reference, tmp_path):
    run = Run(tmp_path / "run")
    assert run.go("step:12").status == -signal.SIGKILL
    before = run.newest_step()
    with files_up_to(60_000):
        process = run.start()
    ended = run.finish(process)
    assert ended.status == 2, ended.said
    assert "tried again every minute" in ended.said and "Make room and rerun" in ended.lines()[-1]
    assert run.newest_step() == before
    assert run.go().status == DONE
    assert_same(run, reference)


def test_a_disk_too_full_for_records_keeps_them_until_there_is_room(reference, tmp_path):
    run = Run(tmp_path / "run")
    with files_up_to(4_000):  # less than the records, more than the configuration
        process = run.start()
    assert run.reach(process, 5)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)  # room is made
    ended = run.finish(process)
    assert ended.status == DONE, ended.said
    assert_same(run, reference)


def test_a_disk_that_is_really_full(reference, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk; the test above does without")
    try:
        run = Run(disk / "run")
        run.ids_file = tmp_path / "ids"
        process = run.start()
        assert run.reach(process, 8)
        with contextlib.suppress(OSError), open(disk / "filler", "wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
        ended = run.finish(process)
        assert ended.status == 2 and "No space left" in ended.said, ended.said
        assert 0 < run.newest_step() < STEPS
        (disk / "filler").unlink()
        assert run.go().status == DONE
        assert_same(run, reference)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_system_that_turns_read_only(reference, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk; a file in the folder's place stands in below")
    try:
        run = Run(disk / "run")
        run.ids_file = tmp_path / "ids"
        assert run.go("step:12").status == -signal.SIGKILL
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        ended = run.go()
        assert ended.status == 2 and "cannot be written" in ended.said
        assert len(ended.lines()) == 1
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert run.go().status == DONE
        assert_same(run, reference)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_checkpoints_that_cannot_be_written_for_a_while(reference, tmp_path):
    run = Run(tmp_path / "run")
    process = run.start()
    assert run.reach(process, 5)
    folder, away = run.workdir / "checkpoints", tmp_path / "away"
    folder.rename(away)
    folder.write_text("in the way")
    assert run.reach(process, 12)
    folder.unlink()
    away.rename(folder)
    ended = run.finish(process)
    assert ended.status == DONE, ended.said
    assert "tried again every minute" in ended.said
    assert_same(run, reference)


def test_a_work_folder_that_is_removed_is_made_anew(reference, tmp_path):
    run = Run(tmp_path / "run")
    process = run.start()
    assert run.reach(process, 8)
    run.workdir.rename(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    ended = run.finish(process)
    assert ended.status == DONE, ended.said
    assert "was removed; it is made anew" in ended.said
    assert_same(run, reference)
    assert {"config.json", "config.flags", "metrics.jsonl", "train.log", "tb"} <= set(os.listdir(run.workdir))


def test_a_tensorboard_folder_that_is_removed_is_filled_again(reference, tmp_path):
    run = Run(tmp_path / "run")
    process = run.start()
    assert run.reach(process, 8)
    shutil.rmtree(run.workdir / "tb")
    assert run.finish(process).status == DONE
    assert_same(run, reference)
    shown = [
        event.step
        for file in (run.workdir / "tb").glob("events.*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == "train/loss"
    ]
    assert sorted(set(shown)) == list(range(1, STEPS + 1))


def test_a_clock_that_is_set_back_changes_nothing(reference, tmp_path):
    run = Run(tmp_path / "run")
    assert run.go("clock:5").status == DONE
    assert_same(run, reference)
    other = Run(tmp_path / "other")
    assert other.go("step:12").status == -signal.SIGKILL
    newest = other.workdir / "checkpoints" / f"step-{other.newest_step():08d}"
    for path in (newest, *newest.iterdir()):
        os.utime(path, (1e9, 1e9))  # older than the one before it
    assert other.go("clock:1").status == DONE
    assert_same(other, reference)


def test_two_runs_in_one_folder(reference, tmp_path):
    run = Run(tmp_path / "run")
    process = run.start()
    assert run.reach(process, 3)
    process.send_signal(signal.SIGSTOP)  # so that it does not end before the other comes
    second = Run(run.workdir).go()
    process.send_signal(signal.SIGCONT)
    assert second.status == 2 and f"in use by process {process.pid}" in second.said
    assert run.finish(process).status == DONE
    assert_same(run, reference)


def test_a_run_whose_lock_another_has_taken_gives_way(reference, tmp_path):
    run = Run(tmp_path / "run", "--epochs=40")
    process = run.start()
    assert run.reach(process, 3)
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.replace(tmp_path / "lock", run.workdir / ".lock")  # at no moment is there none
        ended = run.finish(process)
    assert ended.status == 2, ended.said
    assert "in use by process" in ended.said or "was removed" in ended.said


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path):
    flags = ("--base_lr=1000", "--weight_decay=1", "--similarity=cross_entropy")
    run = Run(tmp_path / "run", *flags)
    first = run.go()
    assert first.status == 4, first.said
    committed = run.newest_step()
    assert 0 < committed < run.recorded()
    for name in run.left():
        assert not name.startswith("export")
    reader = tf.train.load_checkpoint(str(run.workdir / "checkpoints" / f"step-{committed:08d}" / "state"))
    for name, _ in reader.get_variable_to_shape_map().items():
        value = reader.get_tensor(name)
        assert not hasattr(value, "dtype") or value.dtype.kind != "f" or bool((value == value).all()), name
    again = run.go()
    assert again.status == 4 and run.newest_step() == committed, again.said
