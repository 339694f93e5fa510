"""Peak memory of a training step on its device: the graph of the step, executed without computing anything.

A tensor takes memory from the start of its operation to the end of the last operation that reads it, so that
the peak depends on the order of operations. TensorFlow runs several at a time: `peak_bytes` simulates its
executor, with times that are estimated from the work of each operation. Times and order vary from step to
step: the peak is the largest of several simulations.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.runtime import cores

# Operations whose outputs share memory with an input.
SHARED = {
    "Identity", "IdentityN", "Reshape", "StopGradient", "PreventGradient", "ExpandDims", "Squeeze",
    "EnsureShape", "Snapshot",
}  # fmt: skip
# Operations whose outputs belong to a variable, a constant or the caller, and are not counted.
NOT_COUNTED = {"Placeholder", "Const", "ReadVariableOp", "_Arg"}
# Elementwise operations, which write over an input of the same size that nothing else reads.
IN_PLACE = {
    "Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg", "Square", "Sqrt", "Rsqrt", "RsqrtGrad", "Exp",
    "Log", "Maximum", "Minimum", "Relu", "ReluGrad", "Relu6", "Relu6Grad", "Sigmoid", "SigmoidGrad", "Tanh",
    "TanhGrad", "Erf", "BiasAdd", "Softmax", "SelectV2",
}  # fmt: skip
CALLS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"}
PRODUCTS = {
    "Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "DepthwiseConv2dNative", "MatMul",
    "BatchMatMulV2", "Einsum",
}  # fmt: skip
BYTES_A_SECOND, PRODUCTS_A_SECOND = 1e10, 4e10  # by order of magnitude: only the order follows from them
# Number of simulations, in which times are multiplied by factors from 1 / VARIATION to VARIATION.
SIMULATIONS, VARIATION = 8, 2.0
SHORT = 3e-6  # seconds: TensorFlow runs shorter operations at once, on the thread that made them ready


@dataclasses.dataclass
class Node:
    """An operation. Nodes are numbered from 0, each after those whose outputs it takes.

    kind: TensorFlow's name of the operation.
    inputs: (number of a node, number of its output) for each input.
    control_inputs: numbers of other nodes that must end before this one starts.
    sizes: bytes of each output.
    seconds: estimated time.
    workspace: bytes that it needs besides its outputs while it runs.
    """

    kind: str
    inputs: list[tuple[int, int]]
    control_inputs: list[int]
    sizes: list[int]
    seconds: float = 0.0
    workspace: int = 0


@dataclasses.dataclass(frozen=True)
class TracedStep:
    """The graph of a step. batch: specifications of the tensors of its batch, for all local replicas."""

    nodes: list[Node]
    batch: Any

    @property
    def peak_bytes(self) -> int:
        """Bytes of the step's tensors at its peak, on all of this process's replicas.

        Weights, the optimizer's state and the batch itself are not counted.
        """
        return peak_bytes(self.nodes, cores.usable_cores())


def trace(components: RunComponents, config: Any) -> TracedStep:
    """Traces the step that a run would execute. Reads config.batch_size, config.seed, config.jit_compile."""
    local = dataclasses.replace(components, data_service=None)  # the service need not answer yet
    batches: Any = compiled_steps.batches(local, config, components.first_step)
    steps: Any = compiled_steps.compiled_steps(local, config)
    graph = steps.get_concrete_function(batches, tf.constant(1)).graph
    loop = next(op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    return TracedStep(nodes_of(_body(loop)), batches.element_spec)


def nodes_of(graph: Any) -> list[Node]:
    """The operations of a function's graph on which its results or variables depend.

    Other operations never run. Gradients have many, such as zeros for outputs that nothing reads.
    """
    pending, needed = [*(t.op for t in graph.outputs), *graph.control_outputs], set()
    while pending:
        op = pending.pop()
        if op.name not in needed:
            needed.add(op.name)
            pending += [*(t.op for t in op.inputs), *op.control_inputs]
    operations = [op for op in graph.get_operations() if op.name in needed]
    number = {op.name: i for i, op in enumerate(operations)}
    return [
        Node(
            op.type, [(number[t.op.name], t.value_index) for t in op.inputs],
            [number[other.name] for other in op.control_inputs], [_bytes(t) for t in op.outputs],
            _seconds(op), _workspace(op),
        )
        for op in operations
    ]  # fmt: skip


def peak_bytes(nodes: list[Node], threads: int) -> int:
    """The largest sum of the bytes in memory at one time, where `threads` operations run at a time."""
    draws, peak = random.Random(0), 0
    for _ in range(SIMULATIONS):
        seconds = [node.seconds * VARIATION ** draws.uniform(-1, 1) for node in nodes]
        memory = _Memory(nodes)
        for number, starts in _schedule(nodes, seconds, threads):
            memory.start(number) if starts else memory.end(number)
        peak = max(peak, memory.peak)
    return peak


class _Memory:
    """The tensors that are in memory while nodes start and end."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes, self.now, self.peak = nodes, 0, 0
        self.readers = collections.Counter(place for node in nodes for place in node.inputs)
        self.block: dict[tuple[int, int], int] = {}  # output → number of its block of memory
        self.size: dict[int, int] = {}  # block → bytes
        self.users: dict[int, int] = {}  # block → number of nodes that still write or read it

    def start(self, number: int) -> None:
        node = self.nodes[number]
        for k, size in enumerate(node.sizes):
            block = None if node.kind in NOT_COUNTED else self._shared(node, k, size)
            if block is None and size and node.kind not in NOT_COUNTED:
                block = len(self.size)
                self.size[block], self.users[block] = size, 0
                self.now += size
            if block is not None:
                self.block[number, k] = block
                self.users[block] += self.readers[number, k] + 1
        self.peak = max(self.peak, self.now + node.workspace)

    def end(self, number: int) -> None:
        node = self.nodes[number]
        for place in [*((number, k) for k in range(len(node.sizes))), *node.inputs]:
            block = self.block.get(place)
            if block is not None:
                self.users[block] -= 1
                if not self.users[block]:
                    self.now -= self.size[block]

    def _shared(self, node: Node, k: int, size: int) -> int | None:
        """The block of an input that output k takes; None for a new one."""
        if node.kind in SHARED and node.inputs:
            return self.block.get(node.inputs[k if node.kind == "IdentityN" else 0])
        if node.kind in IN_PLACE:
            for block in map(self.block.get, node.inputs):
                if block is not None and self.users[block] == 1 and self.size[block] == size:
                    return block
        return None


def _schedule(nodes: list[Node], seconds: Sequence[float], threads: int) -> Iterable[tuple[int, bool]]:
    """(number of a node, whether it starts or ends), in the order of TensorFlow's executor.

    A thread goes on with the operations that its last one made ready: all short ones, then one long one. It
    puts other long ones in front of its queue. When it has none left, it takes the first of its queue, or
    else the last of another thread's.
    """
    followers: list[list[int]] = [[] for _ in nodes]
    waits = [len(node.inputs) + len(node.control_inputs) for node in nodes]
    for number, node in enumerate(nodes):
        for other in [*(i for i, _ in node.inputs), *node.control_inputs]:
            followers[other].append(number)
    queues = [collections.deque[int]() for _ in range(threads)]
    for place, number in enumerate(i for i, count in enumerate(waits) if not count):
        queues[place % threads].append(number)
    ready = [collections.deque[int]() for _ in range(threads)]
    now, running, idle = 0.0, [], set(range(threads))
    while True:
        for thread in sorted(idle):
            first, others = ready[thread] or queues[thread], next(filter(None, queues), None)
            if not first and not others:
                continue
            number = first.popleft() if first else others.pop()  # pyright: ignore[reportOptionalMemberAccess]
            idle.remove(thread)
            yield number, True
            heapq.heappush(running, (now + seconds[number], number, thread))
        if not running:
            return
        now, number, thread = heapq.heappop(running)
        yield number, False
        idle.add(thread)
        long = []
        for other in followers[number]:
            waits[other] -= 1
            if not waits[other]:
                (ready[thread] if seconds[other] < SHORT else long).append(other)
        if long and not ready[thread]:
            ready[thread].append(long.pop())
        queues[thread].extendleft(long)


def _body(op: tf.Operation) -> Any:
    """The graph of the function that an operation calls, of its loop's body, or of its first branch."""
    name = next(n for n in ("f", "body", "then_branch") if n in op.node_def.attr)
    return op.graph._get_function(op.get_attr(name).name).graph  # pyright: ignore[reportAttributeAccessIssue]


def _workspace(op: tf.Operation) -> int:
    """Bytes of the tensors of a function that an operation calls, besides its results.

    XLA keeps elementwise values in registers, so that functions without products need no workspace.
    """
    if op.type not in CALLS:
        return 0
    nodes = nodes_of(_body(op))
    if not any(node.kind in PRODUCTS or node.workspace for node in nodes):
        return 0
    return max(0, peak_bytes(nodes, 1) - sum(map(_bytes, op.outputs)))


def _bytes(tensor: Any) -> int:
    """The bytes of a tensor; 0 for handles, and for the few tensors of unknown shape, which are small."""
    known = tensor.shape.is_fully_defined() and tensor.dtype not in (tf.resource, tf.variant, tf.string)
    return math.prod(tensor.shape.as_list()) * tensor.dtype.size if known else 0


def _seconds(op: tf.Operation) -> float:
    """The estimated time of an operation."""
    if op.type in SHARED | NOT_COUNTED:
        return 0.0
    sizes = [_bytes(t) for t in [*op.outputs, *op.inputs]]
    seconds = sum(sizes) / BYTES_A_SECOND
    if op.type in PRODUCTS:  # a·b·c multiply-adds, where the three tensors have a·b, b·c and a·c numbers
        tensors = [t for t in [*op.outputs, *op.inputs] if _bytes(t)]
        numbers = sorted((_bytes(t) / t.dtype.size for t in tensors), reverse=True)[:3]
        seconds += math.sqrt(math.prod(numbers)) / PRODUCTS_A_SECOND
    return seconds
