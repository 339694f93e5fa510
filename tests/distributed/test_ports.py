"""A server listens at the address that is asked for, and nowhere else."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from helpers.data_servers import Server
from test_rendezvous import Team, addresses

from simsiam_tf.distributed import ports, strategies
from simsiam_tf.runtime.errors import LostWorker, UserError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")


def can_connect(host, port):
    """Whether a connection is made."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return True
    return False


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as trial:
        trial.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.2", ["127.0.0.2"]),
        ("localhost", ["127.0.0.1", "::1"]),
        (socket.gethostname(), []),
        ("nowhere.invalid", []),
        ("0.0.0.0", []),
        ("[::]", []),
        ("", []),
        ("198.51.100.7", []),  # belongs to no machine (RFC 5737)
    ],
)
def test_addresses_that_are_asked_for(host, expected):
    assert [str(a) for a in ports.listen_addresses(host)] == expected


@LINUX
@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]", "every"])
def test_a_server_of_all_interfaces_is_restricted_to_the_host_asked_for(host, family):
    if not has_ipv6() and (family == "6" or host == "[::1]"):
        pytest.skip("no IPv6 here")
    if family == "4":
        server = socket.create_server(("", 0))
    else:
        server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with server:
        port = server.getsockname()[1]
        everywhere = {h for h in ("127.0.0.1", "127.0.0.2", "::1") if can_connect(h, port)}
        assert {"127.0.0.1", "127.0.0.2"} <= everywhere
        assert ports.restrict_port(port, host) == (host != "every")
        asked = {"localhost": {"127.0.0.1", "::1"}, "[::1]": {"::1"}, "every": everywhere}.get(host, {host})
        assert {h for h in ("127.0.0.1", "127.0.0.2", "::1") if can_connect(h, port)} == asked & everywhere


@LINUX
def test_open_connections_go_on_and_other_ports_stay_open():
    with socket.create_server(("", 0)) as server, socket.create_server(("", 0)) as other:
        port = server.getsockname()[1]
        assert ports.restrict_port(port, "127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            answering, _ = server.accept()
            with answering:
                caller.sendall(b"x" * 2**16)
                assert len(answering.recv(2**16, socket.MSG_WAITALL)) == 2**16
                answering.sendall(b"y" * 2**16)
                assert len(caller.recv(2**16, socket.MSG_WAITALL)) == 2**16
        assert can_connect("127.0.0.2", other.getsockname()[1])
        assert not ports.restrict_port(1, "127.0.0.1")  # on which this process does not listen


def test_the_first_worker_waits_at_its_own_address():
    team = Team(addresses(2))
    port = int(team.names[0].rpartition(":")[2])
    team.start(0, 3)
    end = time.monotonic() + 2
    while not can_connect("127.0.0.1", port):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not can_connect("127.0.0.2", port)
    assert isinstance(team.wait()[0], LostWorker)


@pytest.mark.slow
@LINUX
def test_a_dispatcher_and_a_data_worker_serve_the_host_that_is_given():
    dispatcher = Server("--role=dispatcher", "--host=127.0.0.1")
    try:
        port = int(dispatcher.address().rpartition(":")[2])
        assert can_connect("127.0.0.1", port) and not can_connect("127.0.0.2", port)
        worker = Server("--role=worker", f"--dispatcher=127.0.0.1:{port}")
        try:
            port = int(worker.address().rpartition(":")[2])
            assert can_connect("127.0.0.1", port) and not can_connect("127.0.0.2", port)
        finally:
            worker.kill()
    finally:
        dispatcher.kill()


@pytest.mark.slow
@LINUX
def test_tensorflows_own_servers_serve_the_addresses_of_tf_config():
    """Two workers gather their numbers, and their servers are closed to other addresses."""
    code = (
        "import socket, sys, numpy as np, tensorflow as tf\n"
        "from simsiam_tf.distributed import strategies, workers\n"
        "team = workers.Workers(strategies.strategy_by_name('multi_worker', 1.0))\n"
        "port = int(team.addresses[team.index].rpartition(':')[2])\n"
        "def reached(host):\n"
        "    try: return not socket.create_connection((host, port), timeout=0.5).close()\n"
        "    except OSError: return False\n"
        "print(reached('127.0.0.1'), reached('127.0.0.2'), *team.all_gather(np.arange(team.index + 1)))\n"
    )
    names = addresses(2)
    team = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        env = {**os.environ, "TF_CONFIG": json.dumps({"cluster": {"worker": names}, "task": task})}
        team.append(subprocess.Popen(
            [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ))  # fmt: skip
    for process in team:
        out, err = process.communicate(timeout=120)
        assert out.split() == ["True", "False", "0", "0", "1"], err


def test_an_address_without_a_port_is_named(monkeypatch):
    cluster = {"cluster": {"worker": ["127.0.0.1", "127.0.0.2:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UserError, match="TF_CONFIG: .*'127.0.0.1' has no port"):
        strategies.strategy_by_name("multi_worker")
