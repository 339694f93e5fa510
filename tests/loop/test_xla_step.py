"""A step that XLA compiles whole: equal to the step without it, traced once and compiled once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import xla_steps


@pytest.mark.parametrize(
    "method", ["simsiam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("byol", "moco groups"))]
)
def test_the_compiled_step_equals_the_other(method):
    plain, compiled = (xla_steps.nine_steps(method, choice) for choice in ("auto", "true"))
    assert not xla_steps.differences(plain, compiled)
    for run in (plain, compiled):  # calls of 1, 3 and 2 steps, and an iterator that begins elsewhere
        assert run.loop_traces == 1 and run.step_traces == 1


@pytest.mark.slow
def test_a_rate_that_differs_by_a_tenth_of_a_percent_is_seen():
    runs = [xla_steps.nine_steps("simsiam", "auto", rate) for rate in (0.05, 0.05005)]
    assert xla_steps.differences(*runs)


@pytest.mark.slow
def test_xla_compiles_once_in_a_process(tmp_path):
    """XLA writes a file for each module that it compiles."""
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*"
    done = subprocess.run(
        [sys.executable, Path(xla_steps.__file__)], capture_output=True, text=True, timeout=1800,
        env={**os.environ, "XLA_FLAGS": flags},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    modules = [path.name for path in tmp_path.glob("*before_optimizations.txt")]
    assert len(modules) == 1, modules
