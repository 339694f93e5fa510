"""The time of a step's convolutions and matrix products alone: a lower bound of the time of the step.

The operations are those of the traced step, so the bound follows the model and the algorithms that compute
its convolutions. Each is run on tensors of the same shapes, two at a time as in the step, with nothing in
between.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import bench_harness  # noqa: F401  (before TensorFlow, which it sets up)
import tensorflow as tf

KINDS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul", "BatchMatMulV2")
LANES = 2  # the two views of a step are independent


def executed_operations(step: tf.types.experimental.ConcreteFunction) -> list[tf.Operation]:
    """The operations that a call of a traced function executes.

    The trace also has the gradient of the images, which no result and no assignment needs. Such
    operations are not executed and not counted.
    """
    reached: set[str] = set()
    pending = [x.op for x in step.graph.outputs] + list(step.graph.control_outputs)
    while pending:
        op = pending.pop()
        if op.name not in reached:
            reached.add(op.name)
            pending += [x.op for x in op.inputs] + list(op.control_inputs)
    return [op for op in step.graph.get_operations() if op.name in reached]


def matrix_operations(step: tf.types.experimental.ConcreteFunction) -> list[tf.Operation]:
    """The convolutions and matrix products that a call of a traced function executes."""
    return [op for op in executed_operations(step) if op.type in KINDS]


def flops(op: tf.Operation) -> int:
    """Multiplications and additions of a convolution or matrix product; 0 for any other operation."""
    if op.type not in KINDS:
        return 0
    shapes = [tuple(x.shape) for x in (*op.inputs, *op.outputs)]
    if op.type == "Conv2D":
        kernel, pixels = shapes[1], shapes[-1]
    elif op.type == "Conv2DBackpropInput":
        kernel, pixels = shapes[1], shapes[2]
    elif op.type == "Conv2DBackpropFilter":
        kernel, pixels = shapes[-1], shapes[2]
    else:
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        return 2 * math.prod(shapes[-1]) * shapes[0][-2 if transposed else -1]
    return 2 * math.prod(pixels[:3]) * math.prod(kernel)


def replay_products(step: tf.types.experimental.ConcreteFunction, times: int = 1) -> Callable[[], float]:
    """A call that runs only the step's convolutions and products, `times` times, on random numbers."""
    memory: dict[tuple, tf.Variable] = {}

    def variable_like(tensor: tf.Tensor) -> tf.Variable:
        key = (tuple(tensor.shape), tensor.dtype)
        if key not in memory:
            memory[key] = tf.Variable(tf.cast(0.1 * tf.random.normal(tensor.shape), tensor.dtype))
        return memory[key]

    operations = matrix_operations(step)
    inputs = [[variable_like(x) for x in op.inputs if x.dtype != tf.int32] for op in operations]

    @tf.function
    def run() -> tf.Tensor:
        touched: list[tf.Tensor] = []
        for op, values in zip(operations, inputs, strict=True):
            # An operation waits for the one before it in its lane, and so is not merged with
            # another of the same shapes.
            with tf.control_dependencies(touched[-LANES : -LANES + 1 or None]):
                result = _run_again(op, [tf.convert_to_tensor(v) for v in values])
            touched.append(tf.cast(tf.reshape(result, [-1])[0], tf.float32))
        return tf.add_n(touched)

    return lambda: float([run() for _ in range(times)][-1])


def _run_again(op: tf.Operation, values: list[tf.Tensor]) -> tf.Tensor:
    if op.type == "MatMul":
        candidates = {f"transpose_{side}": op.get_attr(f"transpose_{side}") for side in "ab"}
        return tf.matmul(*values, **candidates)
    if op.type == "BatchMatMulV2":
        return tf.raw_ops.BatchMatMulV2(
            x=values[0], y=values[1], **{f"adj_{side}": op.get_attr(f"adj_{side}") for side in "xy"}
        )
    how = {"strides": op.get_attr("strides"), "padding": op.get_attr("padding").decode()}
    how["explicit_paddings"] = op.get_attr("explicit_paddings")
    if op.type == "Conv2D":
        return tf.raw_ops.Conv2D(input=values[0], filter=values[1], **how)
    sizes = list(op.outputs[0].shape)
    if op.type == "Conv2DBackpropInput":
        kernel, upstream = values
        return tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=upstream, **how)
    images, upstream = values
    return tf.raw_ops.Conv2DBackpropFilter(input=images, filter_sizes=sizes, out_backprop=upstream, **how)
