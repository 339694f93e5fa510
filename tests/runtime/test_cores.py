"""Cores by affinity and cgroups, and the threads and arenas that follow, on simulated machines."""

import os

import pytest

from simsiam_tf.runtime import cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Simulates a machine: (cores of the affinity, files below its root) → the root."""

    def make(count, files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("count", "decoding", "search", "arenas"),
    [
        (1, 1, 1, 1),
        (2, 2, 2, 1),  # a second arena would not let a thread use the blocks that the other freed
        (8, 8, 8, 1),
        (64, 64, 16, 8),  # eight threads wait for an arena, as on eight cores
    ],
)
def test_rules_for_so_many_cores(machine, count, decoding, search, arenas):
    machine(count, {})
    assert cores.decoding_threads(count) == decoding
    assert cores.search_threads(count) == search
    assert cores.training_arenas(count) == arenas


CGROUPS = {
    "none": ({}, 64),
    "version 2, no quota": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
    "version 2": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
    "version 2, half a core": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "version 2, one and a half": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
    "version 2, the group above has less": (
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/pod/box/cpu.max": "800000 100000\n",
        },
        3,
    ),
    "version 2, another namespace's path": (
        {"proc/self/cgroup": "0::/../host\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
        2,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/box\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "600000\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
        6,
    ),
    "version 1, no quota": (
        {
            "proc/self/cgroup": "1:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        64,
    ),
}


@pytest.mark.parametrize(("files", "expected"), CGROUPS.values(), ids=CGROUPS)
def test_a_cgroups_quota_limits_the_cores(machine, files, expected):
    assert cores.usable_cores(machine(64, files)) == expected


def test_the_affinity_limits_the_cores_below_a_quota(machine):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}
    assert cores.usable_cores(machine(3, files)) == 3


def test_without_affinities_all_cores_count(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores.usable_cores(tmp_path) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # not known
    assert cores.usable_cores(tmp_path) == 1


def test_libraries_start_as_many_threads_as_a_quota_pays_for(machine):
    root = machine(64, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"})
    environment = {"OMP_NUM_THREADS": "7"}  # the user's
    cores.limit_libraries(environment, root)
    assert environment == {
        "TF_NUM_INTRAOP_THREADS": "4", "TF_NUM_INTEROP_THREADS": "4", "OPENBLAS_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "7",
    }  # fmt: skip


def test_libraries_choose_by_themselves_without_a_quota(machine):
    environment = {}
    assert cores.limit_libraries(environment, machine(2, {})) == {} and environment == {}
