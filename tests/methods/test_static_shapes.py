"""Whatever a TPU would run has shapes that are known before it runs, and compiles with XLA."""

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import pipeline
from simsiam_tf.nets.cpu import dispatch
from simsiam_tf.training import build_run

TINY = [
    "--data=digits", "--backbone=resnet10", "--stem=cifar", "--width=0.125", "--d=64", "--monitor=none",
    "--projector_layers=2", "--batch_size=32", "--epochs=1", "--strategy=one_device",
    "--augment_on=device",
]  # fmt: skip
ROWS = {
    "paper": [],
    "bfloat16": ["--precision=bfloat16"],
    "asymmetric, two pairs": ["--symmetry=asymmetric_2x"],
    "cross-entropy": ["--similarity=cross_entropy"],
    "BN everywhere": ["--bn=all"],
    "no BN": ["--bn=none"],
    "alternation": ["--alternate=2"],
    "SimCLR": ["--method=simclr", "--predictor=trained"],
    "MoCo": ["--method=moco", "--queue=128", "--key_groups=4"],
    "BYOL": ["--method=byol", "--optimizer=lars"],
    "SwAV": ["--method=swav", "--prototypes=20"],
    "VICReg": ["--method=vicreg"],
    "Barlow Twins": ["--method=barlow"],
}


@pytest.fixture(autouse=True)
def as_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(dispatch, "on_cpu", lambda: False)


def traced(flags):
    """The step with the batch stage of the views, as a concrete function, and a batch for it."""
    config = cli.parse(PretrainConfig, [*TINY, *flags])
    parts = build_run.build_pretraining(config)
    assert parts.on_device
    batches = pipeline.StepBatches(
        parts.source, parts.views, config.batch_size, config.seed, augment_on_host=False
    )
    dataset = batches.dataset(0, 2)
    step = tf.function(
        lambda batch: parts.model.step(pipeline.augment_batch(parts.views, batch)),
        autograph=False,
        jit_compile=True,
    )
    return step, step.get_concrete_function(dataset.element_spec), next(iter(dataset))


BRANCHES = ("f", "then_branch", "else_branch", "body", "cond")  # attributes that name a function


def operations(graph, seen=None):
    """Of a graph and of all functions that it calls."""
    seen = set() if seen is None else seen
    for op in graph.get_operations():
        yield op
        for name in {op.get_attr(a).name for a in BRANCHES if a in op.node_def.attr} - seen:
            seen.add(name)
            function = graph._get_function(name)
            if function is not None:
                yield from operations(function.graph, seen)


def is_scratch(op, output):
    """What a fused BN leaves for its gradient, whose shape is the kernel's own, and zeros like it."""
    if op.type == "ZerosLike":
        return is_scratch(op.inputs[0].op, op.inputs[0])
    return op.type == "FusedBatchNormV3" and output is op.outputs[5]


IN_SHORT = ("paper", "bfloat16")  # the others are slow tests


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=() if row in IN_SHORT else pytest.mark.slow) for row in ROWS]
)
def test_every_shape_is_known_before_the_step_runs(row):
    _, concrete, _ = traced(ROWS[row])
    unknown = [
        f"{op.type} {op.name} {out.shape}"
        for op in operations(concrete.graph)
        for out in op.outputs
        if out.dtype not in (tf.resource, tf.variant)
        and not out.shape.is_fully_defined()
        and not is_scratch(op, out)
    ]
    assert not unknown, unknown[:5]
    assert len(list(operations(concrete.graph))) > 500


@pytest.mark.slow
def test_the_step_compiles_with_xla():
    step, _, batch = traced([])
    outputs = step(batch)
    assert np.isfinite(outputs["loss"]) and outputs["z"].shape == (32, 64)
