"""A run on a Python object has what a run on files has: labels for the monitor, and a resume to the bit."""

import io

import numpy as np
import pytest
from helpers.runs import StopAt, state, tiny
from PIL import Image

from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training.pretraining import DONE, pretrain


class Stripes:
    """Every other image as the bytes of a PNG; the class is the direction of the stripes."""

    name = "stripes"
    labels = np.arange(192) // 96

    def __init__(self, seed=0):
        self.seed = seed

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        colours = np.random.default_rng([self.seed, i]).integers(0, 256, [5, 3], np.uint8)
        image = np.repeat(np.repeat(colours, 4, axis=0)[:, None], 20, axis=1)
        image = image.swapaxes(0, 1) if self.labels[i] else image
        if i % 2:
            return image
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        return file.getvalue()


@pytest.mark.slow
def test_a_run_on_an_object_is_monitored_and_resumed_to_the_bit(tmp_path):
    options = ("--augmentation=cifar", "--epochs=4", "--knn_every=2")
    whole = pretrain(tiny(tmp_path / "whole", *options), source=Stripes())
    assert whole.status == DONE and whole.accuracy.keys() >= {"backbone", "untrained backbone"}
    config = tiny(tmp_path / "stopped", *options)
    assert pretrain(config, callbacks=[StopAt(5)], source=Stripes()).status == INTERRUPTED
    with pytest.raises(UserError, match="images"):  # others of the same name
        pretrain(config, source=Stripes(seed=1))
    assert pretrain(config, source=Stripes()).status == DONE
    assert state(tmp_path / "stopped") == state(tmp_path / "whole")
