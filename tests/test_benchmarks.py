"""The benchmarks' harness and command lines; what they measure is not asserted."""

import functools
import subprocess
import sys
import time
from pathlib import Path

import bare
import contest
import pytest
import tensorflow as tf

from simsiam_tf import nets

SCRIPTS = Path(__file__).parents[1] / "scripts"
NAMES = ("bench_views", "bench_step", "bench_end_to_end", "bench_growth")


def sleeper(seconds):
    return functools.partial(time.sleep, seconds), {"slept": seconds}


def test_a_contest_alternates_and_tells_ratios():
    sides = [
        contest.Side("short", functools.partial(sleeper, 0.02), amount=2),
        contest.Side("long", functools.partial(sleeper, 0.08), amount=2),
    ]
    result = contest.run(sides, repeats=2, calls=2, threads=1)
    assert 0.01 <= result.median("short") < 0.03 and 0.04 <= result.median("long") < 0.06
    assert all(0.1 < ratio < 0.6 for ratio in result.ratios("short", "long"))
    assert result.best(["long", "short"]) == "short"
    assert result.facts == {"short": {"slept": 0.02}, "long": {"slept": 0.08}}
    assert all(1 < mib < 10_000 for mib in result.memory.values())


def test_a_disturbed_contest_says_so():
    quiet = contest.Result({"a": [1.0]}, {}, others=0.02, memory={})
    loud = contest.Result({"a": [1.0]}, {}, others=0.6, memory={})
    assert quiet.warning() == "" and "Do not quote" in loud.warning()


def test_what_is_missing_is_named_with_the_command_that_mends_it():
    assert contest.missing("json") == ""
    assert "pip install --no-deps no_such_module" in contest.missing("json", "no_such_module")


@pytest.mark.parametrize("name", NAMES)
def test_help(name):
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "--json" in done.stdout, done.stderr


def test_the_floor_of_a_step_is_made_of_its_own_products(monkeypatch):
    monkeypatch.setattr(nets.conv, "MANY", sys.maxsize)  # as the benchmark does
    net = nets.resnet10("cifar", width=0.125, channels=1)
    x = tf.ones([4, 16, 16, 1])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(net(x, training=True))
        return tape.gradient(loss, net.trainable_variables)

    traced = step.get_concrete_function(x)
    kinds = [op.type for op in bare.products(traced)]
    convolutions = sum(isinstance(layer, nets.Conv) for layer in net.layers)
    assert kinds.count("Conv2D") == kinds.count("Conv2DBackpropFilter") == convolutions
    assert kinds.count("Conv2DBackpropInput") == convolutions - 1  # the images need no gradient
    value = bare.replay(traced)()
    assert value == value  # a number
