"""A reproduction that is killed ends what it runs, and the next one waits for that."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.paper import runs

HOLDER = """
import sys
from pathlib import Path
from scripts.paper import runs
folder, code = Path(sys.argv[1]), sys.argv[2]
with runs.folder_lock(folder, lambda: True) as lock:
    child = runs.start_process(["-c", code], folder / "log", None, lock)
    print(child.pid, flush=True)
    child.wait()
"""
CHILDREN = {
    "ends at once": "import time; print('up', flush=True); time.sleep(600)",
    "ends its step first": "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit(75)))\n"
    "print('up', flush=True); time.sleep(600)",
}


def _alive(process):
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # none of one that nobody has waited for
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children")
@pytest.mark.parametrize("kind", CHILDREN)
def test_killed_it_ends_what_it_runs_and_the_next_waits_for_that(kind, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path), CHILDREN[kind]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        until = time.monotonic() + 60
        while "up" not in (tmp_path / "log").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        with pytest.raises(runs.Interrupted), runs.folder_lock(tmp_path, lambda: True):
            pass  # in use
        holder.kill()
        waits = []

        def wait():
            waits.append(time.sleep(0.05))
            return time.monotonic() > until

        with runs.folder_lock(tmp_path, wait):
            assert not _alive(child)
    assert kind == "ends at once" or len(waits) > 10
