"""The allocator's settings, looked at from outside: page faults."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from simsiam_tf import memory
if sys.argv[1] == "keep":
    assert memory.keep()
np.ones(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(8 << 20)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    return int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    assert faults("keep") < faults("leave") / 10
