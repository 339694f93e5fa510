"""A backbone file and what the card beside it says."""

import dataclasses
import json

import backbones
import keras
import numpy as np
import pytest

from simsiam_tf import nets, weights
from simsiam_tf.data import RECIPES, open_source
from simsiam_tf.errors import UserError
from simsiam_tf.pretrained import open_pretrained

RECIPE = dataclasses.replace(RECIPES["grayscale"], size=8, area=(0.4, 1.0))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return backbones.exported(tmp_path_factory.mktemp("run"), RECIPE, channels=1)


def test_recipe_and_digest_come_from_the_card(workdir):
    known = open_pretrained(str(workdir))
    assert known.recipe == RECIPE and known.card["step"] == 1 and (known.channels, known.features) == (1, 64)
    assert known.sha256 == json.loads((workdir / "export" / "backbone.json").read_text())["sha256"]
    assert known.views.recipe == RECIPE and known.views.count == 1
    assert open_pretrained(str(workdir), image_size=16).recipe.size == 16


def test_a_file_without_a_card_needs_a_recipe(workdir, tmp_path):
    alone = tmp_path / "alone.keras"
    alone.write_bytes((workdir / "export" / "backbone.keras").read_bytes())
    with pytest.raises(UserError, match="Pass --recipe=imagenet, cifar or grayscale"):
        open_pretrained(str(alone))
    assert open_pretrained(str(alone), "cifar").recipe == RECIPES["cifar"]


def test_what_maps_no_images_to_features_is_no_backbone(tmp_path):
    images = keras.Input((8, 8, 1))
    keras.Model(images, keras.layers.ReLU()(images)).save(tmp_path / "same.keras")
    with pytest.raises(UserError, match="is no backbone"):
        open_pretrained(str(tmp_path / "same.keras"), "grayscale")


def test_other_channels_are_refused(workdir):
    colour = dataclasses.replace(open_source("digits"), name="colours", channels=3)
    with pytest.raises(UserError, match="colours: has 3 channels, the backbone .* takes 1"):
        open_pretrained(str(workdir)).check(colour)


def test_a_backbone_computes_in_the_present_policy(tmp_path):
    """Trained in bfloat16, it is used in float32 where that is what is asked for, and the other way."""
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    backbone = nets.resnet10(stem="small", width=0.125, channels=1)
    weights.export(backbone, tmp_path, {"views": dataclasses.asdict(RECIPES["grayscale"])})
    rounded = open_pretrained(tmp_path).backbone
    keras.mixed_precision.set_dtype_policy("float32")
    opened = open_pretrained(tmp_path).backbone
    assert {layer.compute_dtype for layer in rounded.layers} == {"bfloat16"}
    assert {layer.compute_dtype for layer in opened.layers} == {"float32"}
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(backbone.weights, opened.weights, strict=True))
    exact = nets.resnet10(stem="small", width=0.125, channels=1)
    exact.set_weights(backbone.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 1)).astype(np.float32)
    np.testing.assert_array_equal(opened(x).numpy(), exact(x).numpy())
    assert opened(x).dtype == "float32"
