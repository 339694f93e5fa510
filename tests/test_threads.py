"""Threads are looked at in processes of their own: TensorFlow fixes them with its first operation."""

import os
import subprocess
import sys

import pytest

SAY = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
import simsiam_tf
import tensorflow as tf
from simsiam_tf import threads
{before}
took = threads.core_a_view()
threading = tf.config.threading
print(took, threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""
TRAINING = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from simsiam_tf import train
import tensorflow as tf
train.starting.run = lambda *arguments: print(tf.config.threading.get_intra_op_parallelism_threads())
train.run(None)
"""
HALVES = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import simsiam_tf, keras, tensorflow as tf, numpy as np
from simsiam_tf import nets, threads
from simsiam_tf.evaluate.features import forward
assert threads.core_a_view()
keras.mixed_precision.set_dtype_policy(sys.argv[1])
backbone = nets.resnet10(stem="small", width=0.25, channels=1)
plain = lambda x: tf.cast(backbone(x, training=False), tf.float32)
for rows in (1, 2, 7):
    x = tf.random.normal([rows, 28, 28, 1])
    split, tolerance = forward(backbone)(x), float(sys.argv[2])
    assert split.shape == (rows, 128)
    np.testing.assert_allclose(split, plain(x), rtol=tolerance, atol=tolerance)
for function in (forward(backbone), tf.function(plain)):
    graph = function.get_concrete_function(tf.TensorSpec([None, 28, 28, 1])).graph
    print(sum(op.type == "Conv2D" for op in graph.get_operations()))
"""
NEIGHBOURS = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import simsiam_tf, numpy as np
from simsiam_tf import threads
from simsiam_tf.evaluate.neighbours import nearest
assert threads.core_a_view()
bank, queries = (np.random.default_rng(i).normal(size=(n, 16)) for i, n in enumerate((700, 530)))
unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
cosines = unit[1] @ unit[0].T
similarity, index = nearest(bank, queries, 5, block=50, bank_block=300)
np.testing.assert_array_equal(index, np.argsort(-cosines, axis=1)[:, :5])
np.testing.assert_allclose(similarity, -np.sort(-cosines, axis=1)[:, :5], rtol=1e-5)
seen = set()
def note(item):
    seen.add(item)
    if item == 7: raise KeyError(item)
try: threads.for_each(note, range(8))
except KeyError: print(len(seen))
"""
TWO = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)


def said(code, *arguments, **environment):
    run = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        run, capture_output=True, check=True, text=True, env={**os.environ, **environment}
    ).stdout.split()


@TWO
def test_on_two_cores_each_view_has_one():
    assert said(SAY.format(before=""), "2") == ["True", "1", "2"]


@TWO
def test_a_pre_training_takes_them_before_it_starts():
    assert said(TRAINING) == ["1"]


@TWO
@pytest.mark.parametrize(
    "cores, before, environment, left",
    [
        ("1", "", {}, "0"),
        ("2", "tf.constant(1) + 1", {}, "0"),
        ("2", "", {"TF_NUM_INTRAOP_THREADS": "2"}, "0"),
        ("2", "tf.config.threading.set_intra_op_parallelism_threads(2)", {}, "2"),
    ],
    ids=["one core", "too late", "set by the environment", "set by the program"],
)
def test_what_is_set_or_was_not_measured_is_left_alone(cores, before, environment, left):
    assert said(SAY.format(before=before), cores, **environment)[:2] == ["False", left]


@TWO
@pytest.mark.parametrize("policy, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_features_of_a_batch_keep_both_cores_busy(policy, tolerance):
    in_halves, plain = said(HALVES, policy, str(tolerance))
    assert int(in_halves) == 2 * int(plain) > 0


@TWO
def test_blocks_of_queries_two_at_a_time():
    assert said(NEIGHBOURS) == ["8"]
