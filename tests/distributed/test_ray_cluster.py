"""`embed --ray` on real clusters: a machine is lost midway, the command is killed; equal to one process."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import small_backbones
from PIL import Image

from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.features.embedding_file import read_embeddings

pytestmark = pytest.mark.slow
ENVIRONMENT = {
    **os.environ, "RAY_USAGE_STATS_ENABLED": "0", "TF_NUM_INTRAOP_THREADS": "1",
    "RAY_health_check_timeout_ms": "60000", "RAY_health_check_failure_threshold": "10",  # of a busy machine
}  # fmt: skip
IMAGES, SHARD = 600, 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(root / f"{i:03}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    augmentation = dataclasses.replace(AUGMENTATIONS["cifar"], size=32)
    return small_backbones.exported(tmp_path_factory.mktemp("run"), augmentation, channels=3, width=0.5)


@pytest.fixture(scope="module")
def one_process(photos, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "one.npz"
    subprocess.run(command(photos, weights, out), check=True, env=ENVIRONMENT)
    return read_embeddings(out)


def command(photos, weights, out, *more):
    return [
        sys.executable, "-m", "simsiam_tf.embed", f"--data=folder:{photos}", f"--weights={weights}",
        f"--out={out}", "--batch_size=8", *more,
    ]  # fmt: skip


def check_equal(folder, expected):
    found = read_embeddings(folder)
    assert list(found.names) == list(expected.names) and found.about == expected.about
    np.testing.assert_array_equal(found.features, expected.features)


def parts(out):
    return sorted(out.glob("part-*.parquet"))


def wait_for_parts(out, count, process, seconds=1800):
    end = time.monotonic() + seconds
    while len(parts(out)) < count:
        assert process.poll() is None and time.monotonic() < end, f"{len(parts(out))} of {count} files"
        time.sleep(0.05)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@pytest.fixture
def machines(monkeypatch):
    """A cluster of three machines of a core each."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(
            3
        ):  # NOTE: Ray waits 15 s for ports that it chooses itself, too short on a busy machine
            ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            cluster.add_node(num_cpus=1, object_store_memory=2**28, **ports)
        yield cluster
    finally:
        cluster.shutdown()


def test_the_work_of_a_lost_machine_is_done_by_others(photos, weights, one_process, machines, tmp_path):
    out = tmp_path / "s"
    argv = command(photos, weights, f"{out}/", f"--ray={machines.address}", f"--shard_images={SHARD}")
    process = subprocess.Popen(
        argv, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout))
    reader.start()
    try:
        wait_for_parts(out, 3, process)
        lost = next(node for node in machines.worker_nodes)
        machines.remove_node(lost, allow_graceful=False)
        kept = len(parts(out))
        assert kept < IMAGES // SHARD
        assert process.wait(1800) == 0, said
    finally:
        process.kill()
        reader.join()
    assert f"s: {IMAGES} images of folder:" in said[-1] and not any("Traceback" in line for line in said)
    check_equal(out, one_process)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_continues(photos, weights, one_process, tmp_path, number):
    """On a cluster of its own, whose processes end with it."""
    out = tmp_path / "s"
    argv = command(photos, weights, f"{out}/", "--ray", "--ray_cores=1", f"--shard_images={SHARD}")
    process = subprocess.Popen(argv, env=ENVIRONMENT)
    try:
        wait_for_parts(out, 2, process)
        process.send_signal(number)
        assert process.wait(60) == (75 if number == signal.SIGINT else -number)
    finally:
        process.kill()
    time.sleep(5)
    kept = {part.name: part.stat().st_mtime_ns for part in parts(out)}
    assert 2 <= len(kept) < IMAGES // SHARD
    shutil.copytree(out, tmp_path / "kept")
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {part.name: part.stat().st_mtime_ns for part in parts(out) if part.name in kept} == kept
    check_equal(out, one_process)
    assert "(raylet)" not in done.stdout + done.stderr and "ray" not in done.stdout.lower().replace(
        str(out), ""
    )
