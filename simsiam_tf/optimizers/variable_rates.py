"""What all optimizers share: learning rates by part of the model and by variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import keras
import tensorflow as tf

from simsiam_tf.optimizers.schedules import After, Constant, Schedule


class VariableRates(keras.optimizers.Optimizer):
    """The base of SGD, LARS and AdamW, whose variables have learning rates of their own.

    Args:
        learning_rate: a number or a schedule of the step.
        part_learning_rates: attribute of the model → learning rate or schedule of its variables, for example
            {"predictor": 0.1} for a predictor whose learning rate does not decay (Table 1 c). `compile` of
            the model tells which variables these are; a part without any is a ValueError.
        layer_decay: in (0, 1]; the rate of a variable is multiplied by layer_decay^(number of blocks
            from its own to the heads), as in BEiT (arXiv 2106.08254); `compile` of the model counts the
            blocks (`nets.layer_order`).
        **kwargs: as for a Keras optimizer.
    """

    factors: list[float]  # by which the rate of each variable is multiplied

    def __init__(
        self,
        learning_rate: float | Schedule,
        part_learning_rates: Mapping[str, float | Schedule] | None = None,
        layer_decay: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.part_learning_rates = {
            part: rate if isinstance(rate, Schedule) else Constant(float(rate))
            for part, rate in (part_learning_rates or {}).items()
        }
        self.layer_decay = layer_decay

    def build(
        self,
        variables: Sequence[keras.Variable],
        parts: Mapping[str, Sequence[keras.Variable]] | None = None,
        factors: Sequence[float] | None = None,
    ) -> None:
        """Makes the state of all variables.

        parts: part of the model → its variables. factors: factor of each variable's rate, by `layer_decay`;
        1 when None.

        Raises:
            ValueError: a part of `part_learning_rates` has no variables, or `factors` is None although
                `layer_decay` is not 1.
        """
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
        if self.layer_decay != 1.0 and factors is None:
            raise ValueError(
                "An optimizer with `layer_decay` has to know the blocks of the backbone. Compile a model of "
                "simsiam_tf with it, or pass `factors` to `build`."
            )
        super().build(variables)
        self.add_state(variables)
        self.schedules = [self.part_learning_rates.get(name) for name in names]
        object.__setattr__(self, "factors", list(factors or [1.0] * len(names)))  # hidden from checkpoints

    def add_state(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the optimizer's own variables, such as the momentum, for those of the model."""
        raise NotImplementedError

    def learning_rates(self, step: int) -> dict[str, float]:
        """The learning rates of a step: "lr", and "lr_PART" of each part that has its own.

        Factors by `layer_decay` are not applied.
        """
        parts = {f"lr_{part}": float(rate(step)) for part, rate in self.part_learning_rates.items()}
        rate = self._learning_rate
        return {"lr": float(rate(step) if isinstance(rate, Schedule) else rate), **parts}

    def variable_rate(self, index: int, learning_rate: tf.Tensor) -> tf.Tensor:
        """A variable's learning rate at this step. learning_rate: for parts that have none of their own."""
        schedule, factor = self.schedules[index], self.factors[index]
        if schedule is not None:
            learning_rate = schedule(self.iterations)
        return learning_rate if factor == 1.0 else learning_rate * factor

    def masked_until_start(self, index: int, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient of a variable, or 0 while an `After` holds its learning rate at 0."""
        schedule = self.schedules[index]
        if not isinstance(schedule, After):
            return gradient
        return tf.where(tf.convert_to_tensor(self.iterations) >= schedule.steps, gradient, 0.0)

    def get_config(self) -> dict:
        config = super().get_config()
        config.pop("weight_decay", None)
        rates = keras.saving.serialize_keras_object(self.part_learning_rates)
        return {**config, "part_learning_rates": rates, "layer_decay": self.layer_decay}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> Self:
        rates = keras.saving.deserialize_keras_object(config.get("part_learning_rates", {}))
        return super().from_config({**config, "part_learning_rates": rates}, custom_objects)
