"""What a checkpoint of PyTorch says of its learning rates becomes options of the run that continues it."""

import math

import pytest

from simsiam_tf.pretrained.torch_weights.torch_files import Checkpoint
from simsiam_tf.pretrained.torch_weights.training_state import known_options


def official(epoch, epochs, first=0.1, fixed=True):
    """A checkpoint of facebookresearch/simsiam, whose code sets the rate of an epoch at its start."""
    last = first * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
    groups = [{"params": [0], "fix_lr": False, "lr": last, "momentum": 0.9, "weight_decay": 1e-4}]
    groups += [{"params": [1], "fix_lr": True, "lr": first}]
    if not fixed:
        groups = [{k: v for k, v in groups[0].items() if k != "fix_lr"}]
    return Checkpoint({}, epoch, {"param_groups": groups})


@pytest.mark.parametrize(("epoch", "epochs"), [(40, 100), (100, 100), (2, 800)])
def test_a_constant_rate_of_the_predictor_tells_the_first_rate_and_the_epochs(epoch, epochs):
    options, words = known_options(official(epoch, epochs), "facebookresearch")
    assert options == {
        "lr_update": "epoch", "predictor_lr": "constant", "momentum": 0.9, "weight_decay": 1e-4,
    }  # fmt: skip
    assert words.startswith("0.1 at first") and "base_lr=0.05 with batch_size=512" in words
    assert words.endswith(f"on a cosine of {epochs} epochs")


def test_without_it_the_last_rate_alone_is_known():
    options, words = known_options(official(40, 100, fixed=False), "facebookresearch")
    assert "predictor_lr" not in options and words == "0.06694 in its last epoch, for all parameters"


@pytest.mark.parametrize("groups", [None, 3, [7], [{"lr": "high", "fix_lr": True}], [{"lr": math.nan}]])
def test_odd_optimizers_tell_nothing(groups):
    checkpoint = Checkpoint({}, 40, {"param_groups": groups})
    assert known_options(checkpoint, "facebookresearch") == ({"lr_update": "epoch"}, "")


def test_rates_that_lie_on_no_cosine_name_no_epochs():
    checkpoint = official(40, 41.3)
    assert "cosine" not in known_options(checkpoint, "facebookresearch")[1]
    assert "cosine" not in known_options(official(1, 100), "facebookresearch")[1]  # the first rate still


def test_solo_learn_never_decays_the_predictor_and_others_are_unknown():
    assert known_options(official(40, 100), "solo_learn") == ({"predictor_lr": "constant"}, "")
    assert known_options(official(40, 100), "lightly") == ({}, "")
