"""The inner loop's clock: it is read before the step begins, on one thread as on many."""

import tensorflow as tf

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.loop import compiled_steps
from simsiam_tf.training import build_run

TINY = [
    "--data=digits", "--backbone=resnet10", "--width=0.125", "--d=16", "--batch_size=32", "--epochs=1",
    "--monitor=none", "--strategy=one_device",
]  # fmt: skip


def before(op):
    """The operations that have ended when this one begins."""
    seen, waiting = set(), [op]
    while waiting:
        one = waiting.pop()
        for other in (*(t.op for t in one.inputs), *one.control_inputs):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def test_the_wait_for_data_is_read_off_before_the_step_begins():
    config = cli.parse(PretrainConfig, TINY)
    parts = build_run.build_pretraining(config)
    steps = compiled_steps.compiled_steps(parts, config)
    iterator = compiled_steps.batches(parts, config, 0)
    graph = steps.get_concrete_function(iterator, tf.constant(1)).graph
    (loop,) = (op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    body = graph._get_function(loop.get_attr("body").name).graph
    first = next(op for op in body.get_operations() if op.type == "Conv2D")
    clocks = [op for op in before(first) if op.type == "Timestamp"]
    assert len(clocks) == 2  # as the batch is asked for, and as it is there
