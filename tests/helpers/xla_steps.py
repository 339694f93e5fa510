"""Ten steps of a small model in the loop's compiled function, with and without XLA for the whole step.

python tests/helpers/xla_steps.py     # SimSiam's with XLA, in a process of its own
"""

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS, Views, from_arrays
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.methods import SimSiam

CALLS = (1, 3, 3, 2)  # steps of each call of the loop; the last is short
# XLA fuses operations and adds in another order: each sum is off by some 6e-8 of its largest term, which nine
# steps amplify; up to 2e-5 was measured. Differences are relative to the largest loss, z or change of a
# variable. Only rounding moves variables without a gradient, such as β before a BN: they stay below LEAST.
TOLERANCE, LEAST = 1e-4, 2e-6


@dataclasses.dataclass
class Steps:
    """What nine steps gave. variables: name → (before, after)."""

    rows: np.ndarray
    z: np.ndarray
    variables: dict[str, tuple[np.ndarray, np.ndarray]]
    loop_traces: int
    step_traces: int


def nine_steps(method: str, jit_compile: str, rate: float = 0.05) -> Steps:
    """Trains by calls of CALLS; then one step more, which is not recorded, from another place in the data.

    method: a key of `compared_methods.METHODS`, or "simsiam".
    """
    from helpers import compared_methods

    compared_methods.METHODS["simsiam"] = lambda b: SimSiam(b, d=16, predictor_hidden=32)
    model, traces = compared_methods.compiled_model(method, lr=rate), []
    plain_step = model.step

    def step(batch):  # the name is in that of XLA's module
        traces.append(1)
        return plain_step(batch)

    model.step = step
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 1), np.uint8)
    views = Views(dataclasses.replace(AUGMENTATIONS["grayscale"], size=compared_methods.SIZE))
    workers = Workers(tf.distribute.get_strategy())
    components = RunComponents(workers, from_arrays("noise", images), views, model, 100)
    config = PretrainConfig(data="digits", batch_size=16, seed=3, jit_compile=jit_compile)
    learned = [v for v in (*model.variables, *model.optimizer.variables) if "float" in v.dtype]
    before = [v.numpy() for v in learned]
    iterator = compiled_steps.batches(components, config, 0)
    steps = compiled_steps.compiled_steps(components, config)
    results = [steps(iterator, tf.constant(count)) for count in CALLS]
    after = [v.numpy() for v in learned]
    steps(compiled_steps.batches(components, config, 50), tf.constant(1))
    names = [f"{i:02} {v.path}" for i, v in enumerate(learned)]
    return Steps(
        np.concatenate([rows.numpy()[:, :2] for rows, _ in results]), results[-1][1].numpy(),
        dict(zip(names, zip(before, after, strict=True), strict=True)),
        steps.experimental_get_tracing_count(), len(traces),
    )  # fmt: skip


def differences(one: Steps, other: Steps) -> dict[str, float]:
    """Name → relative difference, of all that differs by more than TOLERANCE."""
    pairs = {
        "loss and metric": (one.rows, other.rows, np.abs(one.rows).max()),
        "z": (one.z, other.z, np.abs(one.z).max()),
    }
    both = zip(one.variables.items(), other.variables.values(), strict=True)
    pairs |= {name: (a, b, np.abs(a - start).max()) for (name, (start, a)), (_, b) in both}
    return {
        name: float(np.abs(a - b).max() / scale)
        for name, (a, b, scale) in pairs.items()
        if not np.isfinite(b).all() or np.abs(a - b).max() > TOLERANCE * scale + LEAST
    }


if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    nine_steps("simsiam", "true")
