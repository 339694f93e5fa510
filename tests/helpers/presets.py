"""ResNets of ours with a card, and what `convert` makes of them for keras-hub."""

import json

import keras
import numpy as np

from simsiam_tf import convert, nets
from simsiam_tf.data import Augmentation
from simsiam_tf.pretrained import backbone_file

RULE = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def randomise(network, seed=0):
    """BN that changes every channel, also after the blocks' last, whose γ begins at 0."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if variable.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1, variable.shape))
    return network


def exported(folder, backbone, **views):
    folder.mkdir(exist_ok=True)
    card = {"views": json.loads(json.dumps(vars(Augmentation(**views)))), "data": "photos", "step": 9}
    backbone_file.export_network(randomise(backbone), folder, card)
    return folder


def run_with_preset(folder):
    """A folder with ResNet-18 and, in "preset", what `convert` makes of it."""
    keras.mixed_precision.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    rule = {key: tuple(values) for key, values in RULE.items()}
    exported(folder, nets.resnet18(), size=96, **rule)
    argv = [f"--weights={folder}", "--layout=keras_hub", f"--out={folder / 'preset'}"]
    assert convert.main(argv) == 0
    return folder
