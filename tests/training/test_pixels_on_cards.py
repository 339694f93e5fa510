"""A run's card says how its encoded images became pixels, so that later commands decode theirs alike."""

import numpy as np
import pytest
from PIL import Image

from simsiam_tf import finetune, open_pretrained, pretrain
from simsiam_tf.data.images.render import render

QUICK = ["--strategy=one_device", "--precision=float32", "--batch_size=8"]


@pytest.fixture
def transparent(tmp_path):
    """A folder of two classes of images, of which half of each is transparent."""
    rng = np.random.default_rng(0)
    for i in range(16):
        pixels = rng.integers(0, 256, (12, 12, 4), np.uint8)
        pixels[:, :6, 3], pixels[:, 6:, 3] = 0, 255
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def test_the_background_of_a_training_is_that_of_its_network(transparent, tmp_path):
    argv = [f"--data=folder:{transparent}", *QUICK, "--epochs=1", "--warmup_epochs=0", "--image_size=8"]
    argv += ["--backbone=resnet10", "--stem=small", "--width=0.125", "--d=8", "--monitor=none"]
    assert pretrain.main([*argv, "--background=black", f"--workdir={tmp_path / 'run'}"]) == 0
    assert left_half(tmp_path / "run", transparent) == 0
    argv = [f"--weights={tmp_path / 'run'}", f"--data=folder:{transparent}", *QUICK, "--epochs=1"]
    for background, value in (("", 0), ("--background=white", 255)):
        tuned = tmp_path / f"tuned-{value}"
        assert finetune.main([*argv, *filter(None, [background]), f"--workdir={tuned}"]) == 0
        assert left_half(tuned, transparent) == value, "the fine-tuned network's"


def left_half(run, images):
    """The value of transparent pixels, as `embed` and other commands see them."""
    data = next(images.rglob("*.png")).read_bytes()
    return float(render(data, open_pretrained(run).pixel_rule)[:, :5].mean())
