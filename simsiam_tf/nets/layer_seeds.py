"""Seeds of random layers, such as dropout and drop path, as functions of the step.

Keras' `SeedGenerator` counts its draws in a variable that no checkpoint keeps, so a resumed run would draw
other numbers. Within `step_seeds` all draws of Keras depend on the step instead, so a resumed run draws the
same dropout masks as an uninterrupted one. Outside `step_seeds` Keras draws as usual.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

NO_GENERATOR = -1  # generator number of draws without a generator, such as those of some drop paths


class StepSeeds:
    """The seeds of one step on one replica.

    numbers: id of a `SeedGenerator` → its number in the model.
    """

    def __init__(self, key: tf.Tensor, numbers: dict[int, int]) -> None:
        self.key, self.numbers = key, numbers
        self.calls: collections.Counter[int] = collections.Counter()

    def next(self, ordered: bool = True, number: int = NO_GENERATOR) -> tf.Tensor:
        """The seed of the next draw of a generator: int32 [2]. A graph counts draws as it is traced."""
        del ordered  # the signature is that of Keras' generators
        call = self.calls[number]
        self.calls[number] += 1
        return fold_in(fold_in(self.key, number), call)


# Local to the thread, since a strategy runs each replica in a thread of its own.
_SEEDS: contextvars.ContextVar[StepSeeds | None] = contextvars.ContextVar("step_seeds", default=None)


class StepSeedGenerator(keras.random.SeedGenerator):
    """A generator of a layer: within `step_seeds` its seeds are functions of the step, else Keras' own."""

    def next(self, ordered: bool = True) -> Any:
        seeds = _SEEDS.get()
        if seeds is None:
            return super().next(ordered)
        return seeds.next(number=seeds.numbers.get(id(self), NO_GENERATOR))


def fold_in(seed: tf.Tensor, number: Any) -> tf.Tensor:
    """A seed that depends on a seed and a number: int32 [2]."""
    number = tf.cast(number, tf.int32)
    return tf.random.experimental.stateless_fold_in(seed, number)  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def step_seeds(model: keras.Model, seed: int, step: Any) -> Iterator[None]:
    """A context: random layers draw by (seed, step, replica, layer, number of the layer's call in the step).

    The layers of a model are numbered in its order. All draws without a generator, such as those of
    keras-hub's and ConvNeXt's drop paths, count as the calls of one more layer.

    Args:
        model: the model that makes the step; its generators become `StepSeedGenerator`s.
        seed: seed of the run.
        step: number of the step, a scalar; in a graph a tensor.
    """
    generators = [g for layer in model._flatten_layers() for g in layer._seed_generators]
    for generator in generators:
        if type(generator) is keras.random.SeedGenerator:
            generator.__class__ = StepSeedGenerator
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    key = fold_in(tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)]), replica)
    seeds = StepSeeds(key, {id(generator): i for i, generator in enumerate(generators)})
    token, before = _SEEDS.set(seeds), global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, seeds)
    try:
        yield
    finally:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, before)
        _SEEDS.reset(token)
