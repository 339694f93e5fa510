"""Presets of keras-hub as backbones: their pixels, their features, their files."""

import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

keras_hub = pytest.importorskip("keras_hub")

from test_other_networks import normalised, pictures

from simsiam_tf import nets
from simsiam_tf.config.backbones import PIXELS
from simsiam_tf.nets import whitening
from simsiam_tf.nets.keras_hub_backbones import import_keras_hub
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError

SIZE = 32
MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
TINY = {  # backbone, its pooling
    "vit": (lambda m: m.ViTBackbone((SIZE, SIZE, 3), 8, 2, 2, 16, 32, dropout_rate=0.1), "token"),
    "vit_mean": (lambda m: m.ViTBackbone((SIZE, SIZE, 3), 8, 1, 2, 16, 32, use_class_token=False), "mean"),
    "dinov2": (
        lambda m: m.DINOV2Backbone(
            8, 2, 16, 2, 32, image_shape=(SIZE, SIZE, 3), position_embedding_shape=(SIZE, SIZE, 3)
        ),
        "token",
    ),
    "swin": (lambda m: m.SwinTransformerBackbone((SIZE, SIZE, 3), 8, [2, 2], [1, 2], 4), "mean"),
    "densenet": (lambda m: m.DenseNetBackbone([2, 2, 2, 2]), "maps"),
    "resnet": (
        lambda m: m.ResNetBackbone([64], [7], [64, 64, 64, 64], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block"),
        "maps",
    ),
    "efficientnet": (
        lambda m: m.EfficientNetBackbone(
            stackwise_width_coefficients=[0.25] * 5,
            stackwise_depth_coefficients=[0.5] * 5,
            stackwise_kernel_sizes=[3] * 5,
            stackwise_num_repeats=[1, 2, 3, 4, 1],
            stackwise_input_filters=[32, 16, 24, 40, 80],
            stackwise_output_filters=[16, 24, 40, 80, 112],
            stackwise_expansion_ratios=[1, 6, 6, 6, 6],
            stackwise_strides=[1, 2, 2, 2, 1],
            stackwise_block_types=["fused", "fused", "unfused", "unfused", "cba"],
            stackwise_squeeze_and_excite_ratios=[0.25] * 5,
            min_depth=8,
        ),
        "maps",
    ),
}
CONVERTERS = {
    "vit": "ViT", "vit_mean": "ViT", "dinov2": "DINOV2", "swin": "SwinTransformer", "densenet": "DenseNet",
    "resnet": "ResNet", "efficientnet": "EfficientNet",
}  # fmt: skip


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Folders of presets with random weights, as keras-hub writes them."""
    root = tmp_path_factory.mktemp("presets")
    for name, (make, _) in TINY.items():
        converter = getattr(keras_hub.layers, f"{CONVERTERS[name]}ImageConverter")(
            image_size=(SIZE, SIZE), scale=(1 / (255 * STD)).tolist(), offset=(-MEAN / STD).tolist()
        )
        make(keras_hub.models).save_to_preset(str(root / name))
        converter.save_to_preset(str(root / name))
    return root


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("swin", "vit", "densenet") else n for n in TINY]
)
def test_features_are_those_of_keras_hub(presets, name, tmp_path, monkeypatch):
    """From pictures to features, by our pixel rule and pooling and by keras-hub's own; also from the file."""
    monkeypatch.chdir(tmp_path)
    images, preset = pictures(SIZE), str(presets / name)
    converter = keras_hub.layers.ImageConverter.from_preset(preset)
    outputs = keras_hub.models.Backbone.from_preset(preset)(converter(images), training=False).numpy()
    pool = {"token": lambda y: y[:, 0], "mean": lambda y: y.mean(1), "maps": lambda y: y.mean((1, 2))}
    expected = pool[TINY[name][1]](outputs)
    known = nets.describe_backbone(f"hub:{preset}+weights")
    assert (known.size, known.channels) == (SIZE, 3)
    network = nets.build_backbone(f"hub:{preset}+weights", SIZE, 3)
    x = normalised(known, images)
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(network(x, training=False), expected, atol=tolerance)
    opened = open_pretrained(f"hub:{preset}")
    assert opened.augmentation.size == SIZE and opened.features == expected.shape[1]
    assert opened.path.parts[0] == "runs" and opened.path.exists()
    x = opened.views.normalise(tf.constant(images))
    np.testing.assert_allclose(opened.backbone(x, training=False), expected, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet", ("stack3_block0_out", "stack2_block0_out")),
        # Their last residual blocks: neither the last block, which is none, nor the wide convolution.
        ("efficientnet", ("block4b_", "block3b_")),
    ],
)
def test_inner_maps_of_a_preset_are_read(presets, name, layers):
    preset = str(presets / name)
    whole = keras_hub.models.Backbone.from_preset(preset)
    network = nets.build_backbone(f"hub:{preset}+weights", SIZE, 3)
    x = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    expected = keras.Model(whole.inputs[0], [whole.get_layer(layer).output for layer in layers])(x)
    maps = keras.Model(network.inputs[0], whitening._last_maps(network))(x)
    for ours, theirs in zip(maps, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.slow
def test_a_preset_is_copied_once_and_again_when_it_changes(presets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / "mine"
    preset.mkdir()
    for file in (presets / "vit").iterdir():
        (preset / file.name).write_bytes(file.read_bytes())
    first = open_pretrained(f"hub:{preset}")
    written = first.path.stat().st_mtime_ns
    assert open_pretrained(f"hub:{preset}").path.stat().st_mtime_ns == written
    (preset / "config.json").write_text((preset / "config.json").read_text() + " ")
    assert open_pretrained(f"hub:{preset}").path.stat().st_mtime_ns > written


@pytest.mark.slow
def test_presets_begin_with_random_weights_at_any_size(presets):
    for size, channels in ((16, 1), (SIZE, 3)):
        network = nets.build_backbone(f"hub:{presets / 'vit'}", size, channels)
        assert network.input_shape == (None, size, size, channels)
    stored = nets.build_backbone(f"hub:{presets / 'vit'}+weights", SIZE, 3)
    differs = [
        not np.array_equal(a, b) for a, b in zip(network.get_weights(), stored.get_weights(), strict=True)
    ]
    assert any(differs)
    with pytest.raises(UserError, match="cannot be opened"):
        nets.build_backbone(f"hub:{presets / 'vit'}+weights", 16, 3)


def test_what_is_no_preset_and_a_missing_library(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match="hub:.*cannot be opened .*pass the preset's folder, with config.json"
    ):
        nets.describe_backbone(f"hub:{tmp_path}+weights")
    assert nets.describe_backbone(f"hub:{tmp_path}", "tf").scale == PIXELS["tf"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hub:x: needs keras-hub: pip install 'simsiam-tf\[kerashub\]'"):
        import_keras_hub("backbone=hub:x")


def test_a_preset_that_names_other_code_is_refused(presets, tmp_path):
    preset = tmp_path / "hostile"
    shutil.copytree(presets / "vit", preset)
    text = (preset / "config.json").read_text()
    (preset / "config.json").write_text(text.replace('"module": "keras"', '"module": "os"'))
    for text in (f"hub:{preset}", f"hub:{preset}+weights"):
        with pytest.raises(UserError, match=r"config.json asks for os.DTypePolicy.* trust_code=true"):
            nets.build_backbone(text, SIZE, 3)


def test_files_of_presets_pass_the_check_and_hostile_arguments_do_not(presets, tmp_path):
    network = nets.build_backbone(f"hub:{presets / 'vit'}+weights", SIZE, 3)
    path = backbone_file.export_network(network, tmp_path, {})
    assert backbone_file.load_backbone(path).count_params() == network.count_params()
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for old, new, reason in (
        (b'"mlp_dim": 32', b'"mlp_dim": 3200000', "it asks for mlp_dim=3200000"),
        (b'"ViTBackbone"', b'"ViTImageClassifier"', "code would run with trust_code=true"),
    ):
        hostile = tmp_path / "hostile.keras"
        with zipfile.ZipFile(hostile, "w") as file:
            for name, data in members.items():
                file.writestr(name, data.replace(old, new) if name == "config.json" else data)
        with pytest.raises(UserError, match=reason):
            backbone_file.load_backbone(hostile)
