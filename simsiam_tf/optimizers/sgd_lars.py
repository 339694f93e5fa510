"""SGD by PyTorch's formula, as in the paper's code, and LARS, which scales the steps of this SGD.

Keras' `SGD(weight_decay=…)` differs: it decouples the decay (w −= lr·wd·w), and multiplies gradients by the
learning rate before they enter the momentum, which gives other weights once the learning rate decays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from simsiam_tf.optimizers.schedules import Schedule
from simsiam_tf.optimizers.variable_rates import VariableRates


@keras.saving.register_keras_serializable("simsiam_tf")
class SGD(VariableRates):
    """Momentum SGD with weight decay as an L2 term of the gradient, and learning rates by part of the model.

    g ← ∇w + weight_decay · w;  m ← momentum · m + g;  w ← w − lr · m

    Every variable decays, BN scales and biases included (Sec. 3).

    Args:
        learning_rate, part_learning_rates, **kwargs: as for `VariableRates`.
        momentum: in [0, 1).
        weight_decay: coefficient of the L2 term, ≥ 0.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        part_learning_rates: Mapping[str, float | Schedule] | None = None,
        name: str = "sgd",
        **kwargs,
    ) -> None:
        super().__init__(learning_rate, part_learning_rates, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = weight_decay

    def add_state(self, variables: Sequence[keras.Variable]) -> None:
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def direction(self, gradient: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
        """g, the summand of the momentum: ∇w + weight_decay · w."""
        return tf.cast(gradient, variable.dtype) + self.l2 * variable

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        # One kernel does m ← momentum · m + g and w ← w − lr · m in place; five ops would pass over memory
        # three times as often.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=tf.cast(self.variable_rate(index, learning_rate), variable.dtype),
            grad=self.masked_until_start(index, self.direction(gradient, variable)),
            momentum=tf.constant(self.momentum, variable.dtype),
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "weight_decay": self.l2}


@keras.saving.register_keras_serializable("simsiam_tf")
class LARS(SGD):
    """SGD whose step is scaled to the norm of each variable (You et al. 2017).

    g ← ∇w + weight_decay · w;  g ← g · trust · ‖w‖ / (‖∇w‖ + weight_decay · ‖w‖ + ε);
    m ← momentum · m + g;  w ← w − lr · m

    The factor of g has no upper limit, and is 1 where ‖w‖ or ‖∇w‖ is 0, as for a bias that starts at 0. The
    linear evaluation of Sec. 3 ("trust coefficient 0.001, no clipping") and SwAV's code (LARC) do the same.

    Args:
        *args, **kwargs: as for `SGD`.
        trust: the trust coefficient, > 0.
        epsilon: added to the denominator.
        exclude_1d: whether biases and BN's scales and shifts have neither this factor nor weight decay, as
            in the pre-training of SimCLR and BYOL, but not of SwAV.
        decayed_slope: whether the denominator is ‖∇w + weight_decay · w‖ + ε, as in the code of SimCLR,
            BYOL, VICReg and Barlow Twins, instead of the sum of both norms.
    """

    def __init__(
        self,
        *args,
        trust: float = 0.001,
        epsilon: float = 1e-8,
        exclude_1d: bool = False,
        decayed_slope: bool = False,
        name: str = "lars",
        **kwargs,
    ) -> None:
        super().__init__(*args, name=name, **kwargs)
        self.trust, self.epsilon = trust, epsilon
        self.exclude_1d, self.decayed_slope = exclude_1d, decayed_slope

    def direction(self, gradient: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
        if self.exclude_1d and len(variable.shape) <= 1:
            return tf.cast(gradient, variable.dtype)
        decayed = super().direction(gradient, variable)
        size = tf.norm(tf.convert_to_tensor(variable))
        slope = tf.norm(tf.cast(gradient, variable.dtype))
        denominator = tf.norm(decayed) if self.decayed_slope else slope + self.l2 * size
        ratio = self.trust * size / (denominator + self.epsilon)
        return tf.where((size > 0) & (slope > 0), ratio, 1.0) * decayed

    def get_config(self) -> dict:
        names = ("trust", "epsilon", "exclude_1d", "decayed_slope")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
