"""Peaks of small graphs by hand."""

import random

import pytest
import tensorflow as tf

from simsiam_tf.training import step_memory
from simsiam_tf.training.step_memory import Node, peak_bytes

LONG = 1.0  # seconds


def chain(*rows):
    """Nodes, each of which reads the output of the one before; the first is a variable."""
    nodes = [Node("ReadVariableOp", [], [], [1000])]
    for number, (kind, size) in enumerate(rows):
        nodes.append(Node(kind, [(number, 0)], [], [size], LONG))
    return nodes


def test_a_tensor_is_freed_when_its_last_reader_has_ended():
    # The variable does not count. 100; 100 + 50; 50 + 30.
    nodes = chain(("Conv2D", 100), ("Conv2D", 50), ("Conv2D", 30))
    assert peak_bytes(nodes, 1) == 150
    nodes[2].workspace = 70  # bytes that it needs while it runs
    assert peak_bytes(nodes, 1) == 220


def test_elementwise_operations_write_over_what_nothing_else_reads():
    nodes = chain(("Conv2D", 100), ("Relu", 100), ("Reshape", 100), ("Conv2D", 40))
    assert peak_bytes(nodes, 1) == 140  # of ReLU, which took the memory of its input, and the last
    nodes.append(Node("MatMul", [(1, 0)], [4], [7], LONG))  # reads ReLU's input at the end
    assert peak_bytes(nodes, 1) == 240


def test_activations_wait_for_the_gradient():
    # x → a → b, then the gradients of b and a by their stored inputs: a, b, and the two that are passed on.
    nodes = chain(("Conv2D", 100), ("Conv2D", 60))
    nodes += [
        Node("Conv2DBackpropInput", [(2, 0)], [], [60], LONG),
        Node("Conv2DBackpropInput", [(3, 0), (1, 0)], [], [100], LONG),
    ]
    assert peak_bytes(nodes, 1) == 100 + 60 + 100  # b is freed: it is read by the first gradient alone


def test_threads_hold_the_tensors_of_several_operations():
    nodes = [Node("Const", [], [], [1])] + [Node("Conv2D", [(0, 0)], [], [100], LONG) for _ in range(4)]
    assert [peak_bytes(nodes, threads) for threads in (1, 2, 4)] == [100, 200, 400]


def test_a_thread_goes_on_with_the_last_of_what_it_made_ready():
    # 1 makes 2 and 3 ready; a single thread runs 3 and what follows it, 4, while 1's output waits for 2.
    nodes = chain(("Conv2D", 100))
    nodes += [
        Node("Conv2D", [(1, 0)], [], [10], LONG),
        Node("Conv2D", [(1, 0)], [], [20], LONG),
        Node("Conv2D", [(3, 0)], [], [40], LONG),
    ]
    assert peak_bytes(nodes, 1) == 100 + 20 + 40
    nodes[4].control_inputs = [2]  # and 2 before 4: 100 + 20 + 10, then 20 + 40
    assert peak_bytes(nodes, 1) == 130


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_node_runs_once_and_after_those_that_it_waits_for(threads):
    draws = random.Random(0)
    nodes = []
    for number in range(300):
        chosen = [(draws.randrange(number), 0) for _ in range(min(number, 2))]
        after = [draws.randrange(number)] if number % 7 == 6 else []
        nodes.append(Node("Conv2D", chosen, after, [1], draws.choice([0.0, 1e-6, 1e-4, 1e-2])))
    ended, started, most = set(), [], 0
    for number, starts in step_memory._schedule(nodes, [n.seconds for n in nodes], threads):
        if starts:
            assert {i for i, _ in nodes[number].inputs} | set(nodes[number].control_inputs) <= ended
            started.append(number)
        else:
            ended.add(number)
        most = max(most, len(started) - len(ended))
    assert sorted(started) == list(range(300)) and len(ended) == 300 and most <= threads


def test_a_graph_by_hand():
    weights = tf.Variable(tf.ones([16, 16]))

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            y = tf.matmul(x, weights)  # 8·16 numbers
            loss = tf.reduce_sum(tf.exp(y))  # as many
        weights.assign_sub(tape.gradient(loss, weights))  # 16·16, written over by no one

    graph = step.get_concrete_function(tf.TensorSpec([8, 16])).graph
    nodes = step_memory.nodes_of(graph)
    assert [n.sizes for n in nodes if n.kind == "MatMul"] == [[512], [1024]]  # of y and of the gradient
    assert 1024 + 512 <= peak_bytes(nodes, 1) <= 1024 + 3 * 512


def test_operations_that_nothing_needs_are_left_out():
    total = tf.Variable(tf.zeros([4]))

    @tf.function(autograph=False)
    def step(x):
        tf.exp(x)  # of no use
        total.assign_add(tf.tanh(x))  # a variable depends on it
        return tf.sin(x)

    graph = step.get_concrete_function(tf.TensorSpec([4])).graph
    kinds = {node.kind for node in step_memory.nodes_of(graph)}
    assert {"Tanh", "Sin", "AssignAddVariableOp"} <= kinds and "Exp" not in kinds


def test_a_call_counts_what_its_function_needs_unless_xla_fuses_it():
    inner = tf.function(lambda x: tf.reduce_sum(tf.exp(tf.tile(x, [100, 1]))), autograph=False)
    product = tf.function(lambda x: tf.reduce_sum(tf.matmul(tf.tile(x, [100, 1]), x)), autograph=False)

    def needed(function):
        graph = tf.function(function).get_concrete_function(tf.TensorSpec([4, 4])).graph
        (call,) = (n for n in step_memory.nodes_of(graph) if "PartitionedCall" in n.kind)
        return call.workspace

    assert needed(inner) == 0
    assert needed(product) == pytest.approx(2 * 400 * 4 * 4, rel=0.02)  # what is tiled, and the product
