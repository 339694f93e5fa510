"""Workers meet: all go on together, whoever is missing is named, and waiting can be ended."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from simsiam_tf.distributed import rendezvous
from simsiam_tf.runtime.errors import LostWorker, UserError


def addresses(count):
    held = [socket.socket() for _ in range(count)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{s.getsockname()[1]}" for s in held]
    for s in held:
        s.close()
    return found


class Team:
    """Threads that meet, and what came of it: index → None or the error."""

    def __init__(self, names):
        self.names, self.ends, self.threads = names, {}, []

    def start(self, index, seconds):
        def work():
            try:
                self.ends[index] = rendezvous.wait_for_all(self.names, index, seconds)
            except UserError as error:
                self.ends[index] = error

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()

    def wait(self):
        for thread in self.threads:
            thread.join(20)
        return self.ends


def test_all_go_on_once_all_have_come():
    team = Team(addresses(3))
    team.start(2, 15)
    team.start(1, 15)
    time.sleep(0.7)
    assert not team.ends
    team.start(0, 15)
    assert team.wait() == {0: None, 1: None, 2: None}


def test_who_is_missing_is_named_on_all_that_are_there():
    team = Team(addresses(3))
    began = time.monotonic()
    team.start(0, 1.5)
    team.start(1, 15)
    ends = team.wait()
    assert time.monotonic() - began < 5
    for index in (0, 1):
        assert isinstance(ends[index], LostWorker)
        assert f"worker 2 ({team.names[2]}) did not join" in str(ends[index])
    alone = Team(team.names)
    alone.start(1, 1)
    assert f"worker 0 ({team.names[0]}) did not join" in str(alone.wait()[1])


def test_the_first_of_many_who_are_missing_are_named():
    team = Team(addresses(41))
    team.start(0, 1.5)
    team.start(1, 15)
    for error in team.wait().values():
        assert f"worker 2 ({team.names[2]})" in str(error) and "worker 0" not in str(error)


def test_strangers_and_those_who_leave_again_do_not_count():
    team = Team(addresses(2))
    team.start(0, 4)
    host, port = team.names[0].split(":")
    time.sleep(0.3)
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"[1, 5]", b"[7, 2]", b"[0, 2]", b"[1, 2]x", b""):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(said)
            time.sleep(0.1)
    assert not team.ends
    assert "worker 1" in str(team.wait()[0])


def test_a_worker_that_was_started_again_counts_once_more():
    team = Team(addresses(3))
    team.start(0, 10)
    host, port = team.names[0].split(":")
    time.sleep(0.3)
    with socket.create_connection((host, int(port))) as leaves:
        leaves.sendall(b"[1, 3]")
        time.sleep(0.3)
    team.start(2, 10)
    time.sleep(1)
    assert not team.ends  # worker 1 has left
    team.start(1, 10)
    assert team.wait() == {0: None, 1: None, 2: None}


def test_an_address_in_use_is_named():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        name = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UserError, match=f"cannot listen at its address {name}"):
            rendezvous.wait_for_all([name, "127.0.0.1:1"], 0, 1)


def run(code):
    """Python that has `rendezvous`, as a process."""
    begin = "import os, signal, sys, time\nfrom simsiam_tf.distributed import rendezvous\n"
    begin += "rendezvous.STARTS_SECONDS = 1.0\n"
    return subprocess.Popen(
        [sys.executable, "-c", begin + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_start_that_hangs_is_ended_by_a_line_that_names_the_others():
    process = run("with rendezvous.start_deadline(['a:1', 'b:2'], 0): time.sleep(20)")
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "worker 1 (b:2): one has ended while TensorFlow was starting" in err


def test_a_signal_during_the_start_acts_after_it_whatever_handler_came_between():
    process = run(
        "signal.signal(signal.SIGTERM, lambda *a: (print('ours'), sys.exit(7)))\n"
        "with rendezvous.start_deadline(['a:1', 'b:2'], 0):\n"
        "    signal.signal(signal.SIGTERM, lambda *a: print('theirs'))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('inside')\n"
        "time.sleep(5)"
    )
    out, err = process.communicate(timeout=60)
    assert out.split() == ["inside", "ours"], (out, err)
    assert process.returncode == 7


def test_nothing_is_left_of_the_watch():
    with rendezvous.start_deadline(["a:1"], 0):
        pass
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True
    )
    assert "select.select" not in children.stdout
