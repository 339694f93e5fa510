"""The cores that this process may use, and what follows from their number: threads and malloc's arenas.

docs/performance.md, "Many cores", has the rules as a table.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

THREADS_PER_ARENA = 8  # of malloc; docs/performance.md, "Many cores", has the counts behind it
MOST_SEARCH_THREADS = 16  # they compare cosines that one product at a time has made
# How many threads libraries start: TensorFlow for an operation, and for operations at a time; NumPy's
# OpenBLAS; OpenMP, which scikit-learn, faiss and PyTorch use.
LIBRARY_THREADS = (
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS",
)  # fmt: skip

_share = math.inf  # of the cores, by `take_share`


def usable_cores(root: str | Path = "/") -> int:
    """The number of cores that this process may use, at least 1.

    These are the cores of its affinity (`taskset`, Slurm, cpusets) or, where that is less, as many as a
    cgroup's quota pays for, rounded up (`docker run --cpus`, a limit in Kubernetes), or as `take_share` says.

    root: folder that holds proc/ and sys/.
    """
    return max(1, math.ceil(min(_schedulable_cores(), _quota(Path(root)), _share)))


def take_share(cores: int) -> None:
    """Lets `usable_cores` return at most this number, where several processes share a machine."""
    global _share
    _share = cores


def decoding_threads(cores: int | None = None) -> int:
    """Images, and pieces of a batch, made at a time; files checked or thumbnails made at a time."""
    return cores or usable_cores()


def search_threads(cores: int | None = None) -> int:
    """Blocks of cosines that are compared at a time."""
    return min(MOST_SEARCH_THREADS, cores or usable_cores())


def training_arenas(cores: int | None = None) -> int:
    """malloc's arenas of a training on CPUs: one for every `THREADS_PER_ARENA` threads.

    A block that is freed in one arena serves only the threads of this arena, so that few arenas need less
    memory; but threads of one arena wait for each other at every block.
    """
    return math.ceil((cores or usable_cores()) / THREADS_PER_ARENA)


def limit_libraries(
    environment: MutableMapping[str, str] = os.environ, root: str | Path = "/"
) -> dict[str, str]:
    """Lets libraries that are loaded from now on start as many threads as a cgroup's quota pays for.

    By themselves they heed the affinity alone: on 64 cores with a quota of 4 they start 64 threads, all of
    which wait once the quota of a tenth of a second is used up. Variables that are set stay as they are.

    Returns:
        The variables that were set; empty without a quota below the affinity.
    """
    cores = usable_cores(root)
    if cores >= _schedulable_cores():
        return {}
    limits = {name: str(cores) for name in LIBRARY_THREADS if name not in environment}
    environment.update(limits)
    return limits


def _schedulable_cores() -> int:
    """The cores of this process's affinity; all cores on systems without affinities."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _quota(root: Path) -> float:
    """The least quota, in cores, of this process's cgroups and those above them; infinite without one."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    least, mounted = math.inf, root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mounted / controllers if controllers else mounted
        base = base if base.is_dir() else mounted / "cpu"
        group = base / path.strip("/")
        while group.is_relative_to(base):
            least = min(least, _quota_of(group))
            group = group.parent
    return least


def _quota_of(group: Path) -> float:
    """The quota of one cgroup in cores, of version 2 or 1; infinite where it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such file
        return math.inf
