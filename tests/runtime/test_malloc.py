"""The allocator's settings, looked at from outside: page faults, and how a process ends."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from simsiam_tf.runtime import malloc
if sys.argv[1] == "keep":
    assert malloc.retain_freed_memory()
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


ENDS = """
import ctypes, os, sys
from simsiam_tf.runtime import malloc
malloc.end_when_exhausted(lambda: os.write(2, b"try a smaller one\\n"), 2)
ctypes.CDLL("libstdc++.so.6")[sys.argv[1]]()  # throws, where nobody catches
"""


@pytest.mark.parametrize(
    ("thrown", "status", "said"),
    [("_ZSt17__throw_bad_allocv", 2, "try a smaller one\n"), ("_ZSt16__throw_bad_castv", -6, "bad_cast")],
)
def test_native_code_without_memory_ends_in_words_and_other_faults_as_ever(thrown, status, said):
    done = subprocess.run([sys.executable, "-c", ENDS, thrown], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr == said if status == 2 else said in done.stderr and "try" not in done.stderr
