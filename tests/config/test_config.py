"""Which flags bind a run: every one but those that say that they do not."""

import dataclasses

import pytest

from simsiam_tf.config import FinetuneConfig, LinearConfig, PretrainConfig, differences, field_types
from simsiam_tf.runtime.errors import UserError

CLASSES = (PretrainConfig, LinearConfig, FinetuneConfig)
PLACES = {"weights"}  # where they lie binds nothing; their digest among a run's facts does


def others(cls, field):
    """Values of a field besides its default: each choice, both booleans, another number or text."""
    kind = field_types(cls)[field.name]
    if field.metadata["choices"]:
        values = field.metadata["choices"]
    elif kind is bool:
        values = (False, True)
    else:
        values = (kind(7),)
    return [value for value in values if value != field.default]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_flag_that_differs_is_named_unless_it_is_free(cls):
    # As they are where nothing makes a flag idle: a predictor, a folder's images, weights, a monitor.
    start = {"weights": "runs/a", "data": "tfds:a", "method": "simsiam", "monitor": "tfds:a"}
    base = {f.name: start.get(f.name, f.default) for f in dataclasses.fields(cls)}
    rules = [r for r in cls.INAPPLICABLE if r.decider in base and r.condition(base[r.decider])]
    idle = {name for rule in rules for name in rule.options}
    for field in dataclasses.fields(cls):
        for value in others(cls, field):
            found = differences(base, {**base, field.name: value}, cls)
            free = field.metadata["resumable"]
            binds = free is not True and field.name not in PLACES | idle and value != base[field.name]
            binds = binds and not (isinstance(free, str) and value == free)
            assert (field.name in found) == binds, (field.name, value)


def test_switches_that_are_turned_off_are_noticed():
    base = dataclasses.asdict(PretrainConfig())
    for name in ("stop_gradient", "output_affine"):
        assert differences(base, {**base, name: False}, PretrainConfig) == [name]


@pytest.mark.parametrize(
    ("cls", "highest"), [(PretrainConfig, 1e3), (LinearConfig, 1e5), (FinetuneConfig, 1e5)]
)
def test_a_learning_rate_has_a_limit(cls, highest):
    given = {"weights": "runs/a"}
    assert cls(**given, workdir="runs/b", base_lr=highest).validate().base_lr == highest
    with pytest.raises(UserError, match=f"base_lr=.*: must be from 0 to {highest}"):
        cls(**given, workdir="runs/b", base_lr=2 * highest).validate()
