"""AdamW with learning rates by variable, and without weight decay where it does harm."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from simsiam_tf.optimizers.schedules import After, Schedule
from simsiam_tf.optimizers.variable_rates import VariableRates

# Names of variables with more than one axis that do not decay either. By the variable's own name: biases of
# attention (heads, width), tables of relative position biases, scales, and tokens for the class, registers
# and masks. By its own or its layer's name: position embeddings.
_UNDECAYED = re.compile(
    r"(?:bias|gamma|beta|scale|token)[^/]*$|(?:^|[/_])pos(?:ition(?:al)?)?_?emb[^/]*(?:/[^/]*)?$", re.I
)


def decays(variable: keras.Variable) -> bool:
    """Whether weight decay applies: not to biases, norms, layer scales, tokens and position embeddings.

    These are all variables of one axis or none, and those with such a name (`_UNDECAYED`), as in the code of
    BEiT and DINOv2.
    """
    return len(variable.shape) > 1 and not _UNDECAYED.search(variable.path)


@keras.saving.register_keras_serializable("simsiam_tf")
class AdamW(VariableRates):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101, Algorithm 2).

    w ← w − lr · weight_decay · w;  m ← β₁ m + (1 − β₁) ∇w;  v ← β₂ v + (1 − β₂) ∇w²;
    w ← w − lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε)

    lr is the variable's own rate, also in the decay. NOTE: ε is added to √v, as in Keras; PyTorch and the
    paper add it to √(v / (1 − β₂ᵗ)). For variables whose schedule is an `After` (frozen at first), t
    counts from the first step that trains them.

    Args:
        learning_rate, part_learning_rates, **kwargs: as for `VariableRates`.
        momentum: β₁, in [0, 1).
        beta_2: β₂, in [0, 1).
        weight_decay: ≥ 0; applies to the variables for which `decays` is true.
        epsilon: ε.
    """

    decayed: list[bool]  # whether weight decay applies, for each variable

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.9,
        beta_2: float = 0.999,
        weight_decay: float = 0.0,
        part_learning_rates: Mapping[str, float | Schedule] | None = None,
        epsilon: float = 1e-8,
        name: str = "adamw",
        **kwargs,
    ) -> None:
        super().__init__(learning_rate, part_learning_rates, name=name, **kwargs)
        self.momentum, self.beta_2, self.epsilon = momentum, beta_2, epsilon
        self.decoupled_decay = weight_decay  # NOTE: Keras would apply one of the name `weight_decay` itself

    def add_state(self, variables: Sequence[keras.Variable]) -> None:
        self.first_moments, self.second_moments = self.add_optimizer_variables(
            variables, ["first_moment", "second_moment"]
        )
        object.__setattr__(self, "decayed", [decays(v) for v in variables])  # hidden from checkpoints

    def update_step(self, gradient, variable, learning_rate) -> None:
        index, dtype = self._get_variable_index(variable), variable.dtype
        rate = tf.cast(self.variable_rate(index, learning_rate), dtype)
        if self.decoupled_decay and self.decayed[index]:
            variable.assign_sub(rate * self.decoupled_decay * variable)
        schedule, step = self.schedules[index], tf.convert_to_tensor(self.iterations) + 1
        if isinstance(schedule, After):
            step = tf.maximum(step - schedule.steps, 1)
        # One kernel, in place, as for `SGD`.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.first_moments[index].value.handle,
            v=self.second_moments[index].value.handle,
            beta1_power=tf.constant(self.momentum, dtype) ** tf.cast(step, dtype),
            beta2_power=tf.constant(self.beta_2, dtype) ** tf.cast(step, dtype),
            lr=rate,
            beta1=tf.constant(self.momentum, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=self.masked_until_start(index, tf.cast(gradient, dtype)),
        )

    def get_config(self) -> dict:
        names = ("momentum", "beta_2", "epsilon")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "weight_decay": self.decoupled_decay}
