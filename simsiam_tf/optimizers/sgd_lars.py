"""SGD and LARS by PyTorch's formulas, with which the paper's experiments run.

Keras' `SGD(weight_decay=…)` decouples the decay (w −= lr·wd·w), and multiplies by the learning rate inside
the momentum, which matters as soon as the learning rate decays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from simsiam_tf.optimizers.schedules import After, Constant, Schedule


@keras.saving.register_keras_serializable("simsiam_tf")
class SGD(keras.optimizers.Optimizer):
    """Momentum SGD with a coupled L2 term, and learning rates by part of the model.

    g ← ∇w + weight_decay · w;  m ← momentum · m + g;  w ← w − lr · m

    Every variable decays, BN scales and biases included (Sec. 3).

    Args:
        learning_rate: a number or a schedule of the step.
        momentum: in [0, 1).
        weight_decay: coefficient of the L2 term, ≥ 0.
        part_learning_rates: attribute of the model → learning rate or schedule of its variables, for example
            {"predictor": 0.1} for a predictor whose learning rate does not decay (Table 1 c). The
            model's `compile` finds the variables of a part, and raises ValueError if there are none.
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
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = weight_decay
        self.part_learning_rates = {
            part: rate if isinstance(rate, Schedule) else Constant(float(rate))
            for part, rate in (part_learning_rates or {}).items()
        }

    def build(self, variables, parts: Mapping[str, Sequence[keras.Variable]] | None = None) -> None:
        """Makes the momentum of all variables. parts: key of `part_learning_rates` → its variables."""
        if self.built:
            return
        part_of = {id(v): part for part in self.part_learning_rates for v in (parts or {}).get(part, ())}
        names = [part_of.get(id(v), "") for v in variables]
        for part in self.part_learning_rates:
            if part not in names:
                raise ValueError(
                    f"The model has no trainable variables in {part!r}, so a learning rate for it has no "
                    f"effect. Received: parts {', '.join(map(repr, parts or {})) or 'none'}."
                )
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")
        self.schedules = [self.part_learning_rates.get(name) for name in names]

    def learning_rates(self, step: int) -> dict[str, float]:
        """The learning rates of a step: "lr", and "lr_PART" of each part that has its own."""
        parts = {f"lr_{part}": float(rate(step)) for part, rate in self.part_learning_rates.items()}
        rate = self._learning_rate
        return {"lr": float(rate(step) if isinstance(rate, Schedule) else rate), **parts}

    def direction(self, gradient: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
        """g, the summand of the momentum: ∇w + weight_decay · w."""
        return tf.cast(gradient, variable.dtype) + self.l2 * variable

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        direction, schedule = self.direction(gradient, variable), self.schedules[index]
        if schedule is not None:
            learning_rate = schedule(self.iterations)
        if isinstance(schedule, After):
            learns = tf.convert_to_tensor(self.iterations) >= schedule.steps
            direction = tf.where(learns, direction, 0.0)
        # One kernel does m ← momentum · m + g and w ← w − lr · m in place; five ops would pass over memory
        # three times as often.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=direction,
            momentum=tf.constant(self.momentum, variable.dtype),
        )

    def get_config(self) -> dict:
        config = super().get_config()
        config.pop("weight_decay", None)
        rates = keras.saving.serialize_keras_object(self.part_learning_rates)
        return {**config, "momentum": self.momentum, "weight_decay": self.l2, "part_learning_rates": rates}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> SGD:
        rates = keras.saving.deserialize_keras_object(config.get("part_learning_rates", {}))
        return super().from_config({**config, "part_learning_rates": rates}, custom_objects)


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
        exclude_1d: biases and BN's scales and shifts have neither this factor nor weight decay, as in the
            pre-training of SimCLR and BYOL, but not of SwAV.
        decayed_slope: the denominator is ‖∇w + weight_decay · w‖, as in the code of SimCLR and BYOL,
            instead of the sum of both norms.
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
