"""A mistyped path of weights is named before TensorFlow is loaded."""

import subprocess
import sys

import pytest

from simsiam_tf.config import PretrainConfig, WeightsConfig
from simsiam_tf.config.backbones import check_stored_networks
from simsiam_tf.convert import ConvertConfig
from simsiam_tf.runtime.errors import UserError

REFUSED = [
    (WeightsConfig(weights="runs/no"), r"^weights=runs/no: no such file: .*/runs/no\. Pass a finished work"),
    (WeightsConfig(weights="file:no.keras"), r"^weights=file:no\.keras: no such file: .*/no\.keras\.$"),
    (ConvertConfig(weights="no.pth"), r"^weights=no\.pth: no such file: .*/no\.pth\.$"),
    (PretrainConfig(backbone="file:no.keras+weights"), r"^backbone=file:no\.keras\+weights: no such file"),
    (PretrainConfig(method="distill", teacher="no.keras"), r"^teacher=no\.keras: no such file"),
]
TAKEN = [
    WeightsConfig(weights=__file__),
    WeightsConfig(weights="hf://USER/NAME"),
    WeightsConfig(weights="no.json#sha256=00"),
    WeightsConfig(weights="hub:vit_tiny"),
    ConvertConfig(weights="resnet_18_imagenet", layout="keras_hub"),
    PretrainConfig(backbone="hub:vit_tiny"),
    PretrainConfig(backbone="py:mine:net"),
    PretrainConfig(backbone=f"file:{__file__}+weights"),
]


@pytest.mark.parametrize(("config", "line"), REFUSED)
def test_a_path_that_leads_nowhere_is_named(config, line):
    with pytest.raises(UserError, match=line):
        check_stored_networks(config)


@pytest.mark.parametrize("config", TAKEN)
def test_other_names_of_networks_are_left_to_those_who_open_them(config):
    check_stored_networks(config)


def test_commands_name_it_without_tensorflow():
    code = (
        "import sys; from simsiam_tf import convert; "
        "status = convert.main(['--weights=no.pth', '--out=x']); "
        "sys.exit(status if 'tensorflow' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "--weights=no.pth: no such file" in done.stderr
