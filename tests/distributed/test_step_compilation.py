"""jit_compile by device and replicas: what is decided, why, and that a run says so."""

import pytest
import tensorflow as tf
from helpers.runs import tiny

from simsiam_tf.distributed import step_compilation
from simsiam_tf.distributed.step_compilation import AUTO, SEVERAL
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run


@pytest.mark.parametrize(
    ("choice", "device", "replicas", "whole"),
    [
        ("auto", "CPU", 1, False), ("auto", "CPU", 2, False), ("true", "CPU", 1, True),
        ("false", "CPU", 2, False),
        ("auto", "GPU", 1, AUTO["GPU"].whole), ("auto", "GPU", 8, False), ("true", "GPU", 1, True),
        ("false", "GPU", 1, False), ("auto", "TPU", 8, True), ("true", "TPU", 8, True),
    ],
)  # fmt: skip
def test_the_decision(choice, device, replicas, whole):
    decided = step_compilation.step_compilation(choice, device, replicas)
    assert decided.whole == whole
    if choice != "auto" and device != "TPU":
        assert decided.reason == f"jit_compile={choice}"
    else:
        assert decided.reason == (AUTO[device].reason if device == "TPU" or replicas == 1 else SEVERAL)


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_several_replicas_are_refused_in_one_line_with_what_to_type(device):
    with pytest.raises(
        UserError, match=r"jit_compile=true: not .* 2 replicas, .* Pass jit_compile=auto"
    ) as error:
        step_compilation.step_compilation("true", device, 2)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("gpu", "device"), [(False, "CPU"), (True, "GPU")])
def test_the_device_is_that_of_the_process(monkeypatch, gpu, device):
    monkeypatch.setattr(step_compilation.devices, "on_gpu", lambda: gpu)
    decided = step_compilation.compilation_on(tf.distribute.get_strategy(), "auto")
    assert decided == AUTO[device]


def test_replicas_are_those_of_the_strategy(two_replicas, tmp_path):
    assert step_compilation.compilation_on(two_replicas, "auto").reason == SEVERAL
    with pytest.raises(UserError, match="jit_compile=true"):
        build_run.set_precision(tiny(tmp_path, "--jit_compile=true"), two_replicas)


def test_the_log_line_names_choice_and_reason():
    assert str(AUTO["CPU"]).startswith("XLA does not compile the whole step: compiled steps took")
    assert str(AUTO["TPU"]) == "XLA compiles the whole step: TPUs run nothing else"
