"""Whether XLA compiles a training step as one function: the option `jit_compile` by device and replicas."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simsiam_tf.runtime import devices
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class StepCompilation:
    """whole: whether XLA compiles the whole step. reason: why, in words."""

    whole: bool
    reason: str

    def __str__(self) -> str:
        verb = "compiles" if self.whole else "does not compile"
        return f"XLA {verb} the whole step: {self.reason}"


AUTO = {  # jit_compile=auto on one replica, by device; scripts/bench/gpu.sh measures GPUs
    "TPU": StepCompilation(True, "TPUs run nothing else"),
    "GPU": StepCompilation(False, "what it gains on GPUs is not measured; BN in bfloat16 is compiled alone"),
    "CPU": StepCompilation(False, "compiled steps took twice the time on CPUs (docs/performance.md)"),
}
# NOTE: on GPUs MirroredStrategy has collectives for compiled functions, but Keras' optimizers count steps in
# a variable that all replicas assign together, which no compiled function can do.
SEVERAL = "TensorFlow exchanges values of replicas outside of compiled functions only"


def step_compilation(choice: str, device: str, replicas: int) -> StepCompilation:
    """What the option `jit_compile` means for the step.

    Args:
        choice: "auto", "true" or "false".
        device: a key of `AUTO`.
        replicas: number of replicas, those of all workers together.

    Raises:
        UserError: jit_compile=true on several replicas.
    """
    if device == "TPU":
        return AUTO[device]
    if choice == "true" and replicas > 1:
        raise UserError(
            f"jit_compile=true: not supported on {replicas} replicas, since {SEVERAL}. "
            "Pass jit_compile=auto or strategy=one_device."
        )
    if choice != "auto":
        return StepCompilation(choice == "true", f"jit_compile={choice}")
    return AUTO[device] if replicas == 1 else StepCompilation(False, SEVERAL)


def compilation_on(strategy: tf.distribute.Strategy, choice: str) -> StepCompilation:
    """`step_compilation` on the devices of a strategy."""
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    device = "TPU" if on_tpu else "GPU" if devices.on_gpu() else "CPU"
    return step_compilation(choice, device, strategy.num_replicas_in_sync)
