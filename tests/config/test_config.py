"""Which flags bind a run: every one but those that say that they do not."""

import dataclasses

import pytest

from simsiam_tf import curate, embed, knn_eval, probe, report
from simsiam_tf.config import (
    FinetuneConfig,
    LinearConfig,
    PretrainConfig,
    TransferConfig,
    default,
    differences,
    field_types,
)
from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.data.sources.unreadable import report_unreadable
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


def test_one_rule_says_what_an_unreadable_image_does():
    """A training or an accuracy of all images stops; answers for each go on, and name what they lack."""
    stops = (PretrainConfig, LinearConfig, FinetuneConfig, knn_eval.KnnConfig, probe.ProbeConfig)
    goes_on = (embed.EmbedConfig, curate.CurateConfig, report.ReportConfig)
    helps = set()
    for commands, value in ((stops, "error"), (goes_on, "skip")):
        for cls in commands:
            assert default(cls, "on_bad_image") == value, cls.__name__
            fields = {field.name: field for field in dataclasses.fields(cls)}
            helps.add(fields["on_bad_image"].metadata["help"].partition(" A file beside")[0])
    assert len(helps) == 1 and "Training and accuracies stop by default, since" in helps.pop()
    assert default(TransferConfig, "on_bad_image") == "error"
    with pytest.raises(UserError, match=r"go on without them: pass on_bad_image=skip\.$"):
        report_unreadable({"a.jpg": "cut off"}, 2, "folder:x", SourceOptions())
