"""Before TensorFlow starts: quiet logs, torch without triton, and one CPU as two devices."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["SIMSIAM_TF_CACHE"] = tempfile.mkdtemp(
    prefix="simsiam_tf-tests-"
)  # also of commands that tests run
atexit.register(shutil.rmtree, os.environ["SIMSIAM_TF_CACHE"], ignore_errors=True)

import simsiam_tf  # noqa: F401, I001 - first, as in every use: it turns oneDNN on

import reference_torch  # noqa: F401 - keeps triton out
import keras
import pytest
import tensorflow as tf

from simsiam_tf.runtime import progress

progress.DELAY = 60.0  # a busy machine must not add lines of progress to the output that tests compare


def _two_cpus() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu):
        return
    try:
        # One thread an operation: a sum's order, and with it on which side of ReLU's kink rounding leaves an
        # activation of a deep network, must not depend on the machine's cores (tests/methods/test_parity.py).
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    except RuntimeError:  # TensorFlow runs already; `two_replicas` then skips
        return


_two_cpus()


@pytest.fixture(autouse=True)
def float32():
    """Every test begins in float32: a run's --precision=auto is bfloat16 where the CPU has it, and stays.

    It ends in float32, too, since fixtures of the next module are made before this one.
    """
    keras.mixed_precision.set_dtype_policy("float32")
    yield
    keras.mixed_precision.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two synchronous replicas on one CPU."""
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("TensorFlow was initialised before tests/conftest.py could make two CPUs")
    return tf.distribute.MirroredStrategy([d.name for d in devices[:2]])


_measured: list[tuple[str, str, float, float]] = []


@pytest.fixture
def measured(request):
    """Asserts that a figure is below its tolerance, and notes both for the table of PARITY_TABLE=FILE."""

    def below(quantity: str, value: float, tolerance: float, about: object = "") -> None:
        case = request.node.name.partition("[")[2].rstrip("]")
        _measured.append((quantity, case, value, tolerance))
        assert value < tolerance, (quantity, value, about)

    return below


def pytest_sessionfinish():
    path = os.environ.get("PARITY_TABLE")
    if path and _measured:
        rows = [f"| {q} | {case} | {value:.1e} | {limit:.0e} |" for q, case, value, limit in _measured]
        head = ["| quantity | case | measured | tolerance |", "| --- | --- | --- | --- |"]
        with open(path, "w", encoding="utf-8") as out:
            out.write("\n".join([*head, *rows]) + "\n")
