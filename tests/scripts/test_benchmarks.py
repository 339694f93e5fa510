"""The benchmarks' harness and command lines; what they measure is not asserted."""

import ast
import functools
import importlib
import subprocess
import sys
import time
import types
from pathlib import Path

import bench_harness
import bench_run
import bench_sources
import onednn_floor
import profile_step
import pytest
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.data import open_source
from simsiam_tf.nets.cpu import dispatch

SCRIPTS = Path(__file__).parents[2] / "scripts" / "bench"
NAMES = (
    "bench_views", "bench_step", "bench_end_to_end", "bench_growth", "bench_run", "bench_conv", "bench_bn",
    "profile_step", "bench_save", "bench_knn", "bench_sources", "set_answers",
    "finishing", "bench_decoded", "bench_squares", "bench_memory",
)  # fmt: skip


def sleeper(seconds):
    return functools.partial(time.sleep, seconds), {"slept": seconds}


@pytest.mark.slow
def test_candidates_alternate_and_give_ratios():
    candidates = [
        bench_harness.Candidate("short", functools.partial(sleeper, 0.02), amount=2),
        bench_harness.Candidate("long", functools.partial(sleeper, 0.08), amount=2),
    ]
    result = bench_harness.time_candidates(candidates, repeats=2, calls=2, threads=1)
    assert 0.01 <= result.median("short") < 0.03 and 0.04 <= result.median("long") < 0.06
    assert all(0.1 < ratio < 0.6 for ratio in result.ratios("short", "long"))
    assert result.best(["long", "short"]) == "short"
    assert result.metadata == {"short": {"slept": 0.02}, "long": {"slept": 0.08}}
    assert all(1 < mib < 10_000 for mib in result.memory.values())


def test_a_disturbed_comparison_warns():
    quiet = bench_harness.Timings({"a": [1.0]}, {}, other_cores=0.02, memory={})
    loud = bench_harness.Timings({"a": [1.0]}, {}, other_cores=0.6, memory={})
    assert quiet.warning() == "" and "Do not quote" in loud.warning()


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    assert bench_harness.install_hint("json") == ""
    assert "pip install --no-deps no_such_module" in bench_harness.install_hint("json", "no_such_module")


@pytest.mark.parametrize("name", NAMES)
def test_help(name):
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "--json" in done.stdout, done.stderr


def imported_modules(tree):
    """Name → module of simsiam_tf that a script imports under it; fails for names that do not exist."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simsiam_tf"):
            parent = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(parent, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                value = getattr(parent, alias.name)
                if isinstance(value, types.ModuleType):
                    modules[alias.asname or alias.name] = value
    return modules


@pytest.mark.parametrize(
    "path", sorted(SCRIPTS.parent.rglob("*.py")), ids=lambda p: str(p.relative_to(SCRIPTS.parent))
)
def test_scripts_use_names_of_the_package_that_exist(path):
    tree = ast.parse(path.read_text())
    modules = imported_modules(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{path.name}:{node.lineno} {node.attr}"


def test_flops_of_a_product_count_every_multiplication_and_addition():
    @tf.function
    def step(x, k, a, b):
        with tf.GradientTape() as tape:
            tape.watch((x, k))
            y = tf.nn.conv2d(x, k, 2, "SAME")
        return y, *tape.gradient(y, (x, k)), tf.matmul(a, b), tf.matmul(b[None], a[None], True, True)

    x, k = tf.ones([2, 8, 8, 3]), tf.ones([3, 3, 3, 5])
    traced = step.get_concrete_function(x, k, tf.ones([4, 6]), tf.ones([6, 7]))
    counted = {
        op.type: onednn_floor.flops(op)
        for op in onednn_floor.executed_operations(traced)
        if onednn_floor.flops(op)
    }
    a_convolution = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)
    assert counted.pop("MatMul") == 2 * 4 * 6 * 7 and counted.pop("BatchMatMulV2") == 2 * 7 * 6 * 4
    assert counted == dict.fromkeys(("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"), a_convolution)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("_MklNativeConv2DBackpropFilter", "convolutions"), ("_MklBatchMatMulV2", "matrix products"),
        ("_MklNativeFusedBatchNormGradV3", "BN"), ("ReluGrad", "ReLU and its gradient"), ("NoOp", "the rest"),
    ],
)  # fmt: skip
def test_the_profile_sorts_operations_into_classes(kind, name):
    assert profile_step._class_of(kind) == name


@pytest.mark.slow
def test_places_hold_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    specs = bench_sources.make_places(tmp_path, 4)
    assert {"folder", "list", "tar", "zip", "tfrecord"} <= specs.keys()
    images = {}
    for place, spec in specs.items():
        if place != "hf":  # which writes into the user's cache
            source = open_source(spec)
            images[place] = [source.decode(tf.constant(i)).numpy().tolist() for i in range(source.size)]
    assert len(images["folder"]) == 4 and all(pixels == images["folder"] for pixels in images.values())


@pytest.mark.slow
def test_starts_check_what_is_new(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    starts = bench_sources.time_starts(tmp_path, 1200)
    assert [start["checked"] for start in starts.values()] == [1200, 0, 1]
    assert [start["files"] for start in starts.values()] == [1200, 1200, 1201]


def test_starts_are_extrapolated_without_their_imports():
    start = {"files": 100, "import_seconds": 2, "open_seconds": 3, "import_mib": 500, "peak_mib": 510}
    assert bench_sources.extrapolated(start, 1000) == (2 + 30, 500 + 100)


@pytest.mark.slow
def test_each_stage_of_a_run_is_timed(tmp_path):
    flags = ["--data=digits", "--backbone=resnet10", "--width=0.125", "--d=32", "--batch_size=64"]
    took, losses = bench_run._timed_run([*flags, "--epochs=1", f"--workdir={tmp_path}"], None, time.time())
    assert len(losses) == 1437 // 64 and all(-1 <= loss < 0.5 for loss in losses)
    assert set(took) == {*bench_run.START, *bench_run.BESIDE, "training", "the end"}
    assert all(seconds > 0 for seconds in took.values())
    assert sum(took[part] for part in bench_run.BESIDE) < took["training"]


def test_batched_products_are_replayed_with_their_transpositions():
    @tf.function
    def step(a, b):
        return tf.matmul(a, b, transpose_a=True, transpose_b=True)

    traced = step.get_concrete_function(tf.ones([3, 4, 6]), tf.ones([3, 7, 4]))
    assert [op.type for op in onednn_floor.matrix_operations(traced)] == ["BatchMatMulV2"]
    value = onednn_floor.replay_products(traced)()  # candidates that were not transposed would not fit
    assert value == value  # a number


def test_the_floor_of_a_step_has_the_products_of_its_layers(monkeypatch):
    monkeypatch.setattr(dispatch, "DISPATCH_BY_SHAPE", False)  # as the benchmark does
    net = nets.resnet10("cifar", width=0.125, channels=1)
    x = tf.ones([4, 16, 16, 1])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(net(x, training=True))
        return tape.gradient(loss, net.trainable_variables)

    traced = step.get_concrete_function(x)
    kinds = [op.type for op in onednn_floor.matrix_operations(traced)]
    convolutions = sum(isinstance(layer, nets.Conv) for layer in net.layers)
    assert kinds.count("Conv2D") == kinds.count("Conv2DBackpropFilter") == convolutions
    assert kinds.count("Conv2DBackpropInput") == convolutions - 1  # the images need no gradient
    value = onednn_floor.replay_products(traced)()
    assert value == value  # a number
