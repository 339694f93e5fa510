"""SGD and LARS as the paper's experiments use them: PyTorch's formulas, not Keras' own.

Keras' `SGD(weight_decay=…)` is decoupled (w −= lr·wd·w) and keeps the learning rate inside
the velocity. The paper's runs do neither, which matters as soon as the rate decays.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from simsiam_tf.optimizers.schedules import After, Constant, Schedule


@keras.saving.register_keras_serializable("simsiam_tf")
class SGD(keras.optimizers.Optimizer):
    """Momentum SGD with coupled L2 and a learning rate that may differ per variable.

    g ← ∇w + weight_decay · w;  m ← momentum · m + g;  w ← w − lr · m

    The decay reaches every variable, BN scales and biases included (Sec. 3).

    Args:
        learning_rate: a number or a schedule of the step.
        momentum: in [0, 1).
        weight_decay: coefficient of the L2 term, ≥ 0.
        overrides: substring of a variable's path → its own rate or schedule, for example
            {"predictor": 0.1} for a predictor whose rate is not decayed (Table 1 c).

    Raises:
        ValueError: at build, when an override matches no variable.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        overrides: Mapping[str, float | Schedule] | None = None,
        name: str = "sgd",
        **kwargs,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = weight_decay
        self.overrides = {
            key: rate if isinstance(rate, Schedule) else Constant(float(rate))
            for key, rate in (overrides or {}).items()
        }

    def build(self, variables) -> None:
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")
        # A path takes the first override that it contains.
        self.rates = [
            next((rate for key, rate in self.overrides.items() if key in v.path), None) for v in variables
        ]
        for key in self.overrides:
            if not any(key in v.path for v in variables):
                raise ValueError(
                    f"No trainable variable has {key!r} in its path, so its learning rate has "
                    f"no effect. Paths look like {variables[0].path!r}."
                )

    def rate(self, index: int, learning_rate: tf.Tensor) -> tf.Tensor:
        """The learning rate of the variable with this index, at this step."""
        own = self.rates[index]
        return learning_rate if own is None else own(self.iterations)

    def learns(self, index: int) -> tf.Tensor | None:
        """Whether this variable is past the steps for which it is frozen; None where it never is."""
        own = self.rates[index]
        return self.iterations >= own.steps if isinstance(own, After) else None

    def direction(self, gradient: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
        """What is added to the momentum: ∇w + weight_decay · w."""
        return tf.cast(gradient, variable.dtype) + self.l2 * variable

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        direction, learns = self.direction(gradient, variable), self.learns(index)
        if learns is not None:
            direction = tf.where(learns, direction, 0.0)
        # One kernel, m ← momentum · m + g and w ← w − lr · m in place: five ops of the same
        # arithmetic pass over memory three times as often.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=tf.cast(self.rate(index, learning_rate), dtype),
            grad=direction,
            momentum=tf.constant(self.momentum, dtype),
        )

    def get_config(self) -> dict:
        config = super().get_config()
        config.pop("weight_decay", None)
        rates = {k: keras.saving.serialize_keras_object(r) for k, r in self.overrides.items()}
        return {**config, "momentum": self.momentum, "weight_decay": self.l2, "overrides": rates}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> SGD:
        rates = config.pop("overrides", {})
        config["overrides"] = {k: keras.saving.deserialize_keras_object(r) for k, r in rates.items()}
        return super().from_config(config, custom_objects)


@keras.saving.register_keras_serializable("simsiam_tf")
class LARS(SGD):
    """SGD whose step is scaled, variable by variable, to the size of the variable (You et al. 2017).

    g ← ∇w + weight_decay · w;  g ← g · trust · ‖w‖ / (‖∇w‖ + weight_decay · ‖w‖ + ε);
    m ← momentum · m + g;  w ← w − lr · m

    The ratio is not limited, and is 1 where ‖w‖ or ‖∇w‖ is 0, as for a bias that starts at 0: the
    linear evaluation of Sec. 3 ("trust coefficient 0.001, no clipping"), and SwAV's code (LARC).

    Args:
        learning_rate, momentum, weight_decay, overrides: as for `SGD`.
        trust: the trust coefficient, > 0.
        epsilon: added to the denominator.
        exclude_1d: whether biases and BN's scales and shifts have neither ratio nor weight decay, as in
            the pre-training of SimCLR and BYOL. SwAV's leaves out nothing.
        decayed_slope: whether the denominator is ‖∇w + weight_decay · w‖ instead of the sum of both norms,
            as in the code of SimCLR and BYOL.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        overrides: Mapping[str, float | Schedule] | None = None,
        trust: float = 0.001,
        epsilon: float = 1e-8,
        exclude_1d: bool = False,
        decayed_slope: bool = False,
        name: str = "lars",
        **kwargs,
    ) -> None:
        super().__init__(learning_rate, momentum, weight_decay, overrides, name=name, **kwargs)
        self.trust, self.epsilon = trust, epsilon
        self.exclude_1d, self.decayed_slope = exclude_1d, decayed_slope

    def direction(self, gradient: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
        if self.exclude_1d and len(variable.shape) <= 1:
            return tf.cast(gradient, variable.dtype)
        decayed = super().direction(gradient, variable)
        size = tf.norm(tf.convert_to_tensor(variable))
        slope = tf.norm(tf.cast(gradient, variable.dtype))
        whole = tf.norm(decayed) if self.decayed_slope else slope + self.l2 * size
        ratio = self.trust * size / (whole + self.epsilon)
        return tf.where((size > 0) & (slope > 0), ratio, 1.0) * decayed

    def get_config(self) -> dict:
        own = ("trust", "epsilon", "exclude_1d", "decayed_slope")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
