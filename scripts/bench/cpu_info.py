"""What the system says of the CPU."""

from __future__ import annotations

from pathlib import Path


def cpu_name() -> str:
    """The CPU's name, such as "AMD EPYC"."""
    names = (line.partition(":")[2] for line in cpu_text().splitlines() if line.startswith("model name"))
    return next(names, "unknown CPU").strip()


def cpu_text() -> str:
    """/proc/cpuinfo; empty where there is none."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
