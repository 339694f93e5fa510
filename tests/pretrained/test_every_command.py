"""Every command takes every kind of network, on gray digits that become colours."""

import keras
import numpy as np
import pytest

from simsiam_tf import embed, export, finetune, knn_eval, linear_eval, neighbours, pretrain, probe, report
from simsiam_tf.config import METHODS

keras_hub = pytest.importorskip("keras_hub")
pytestmark = pytest.mark.slow

SIZE = 32
DATA = ["--data=digits"]
TRAIN = ["--epochs=1", "--batch_size=256", "--strategy=one_device", "--precision=float32"]
PRETRAIN = [*DATA, *TRAIN, f"--image_size={SIZE}", "--d=64", "--predictor_hidden=32", "--base_lr=0.05"]


def vit():
    return keras_hub.models.ViTBackbone((SIZE, SIZE, 3), 8, 2, 2, 32, 64, dropout_rate=0.1)


def densenet():
    return keras_hub.models.DenseNetBackbone([1, 1, 1, 1])


def preset(folder, network, name):
    network.save_to_preset(str(folder))
    converter = getattr(keras_hub.layers, f"{name}ImageConverter")(
        image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1.0
    )
    converter.save_to_preset(str(folder))
    return f"hub:{folder}"


def network_of(kind, folder):
    """What `weights` names."""
    if kind == "file":
        network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(None, None, 3))
        network.save(folder / "net.keras")
        return str(folder / "net.keras")
    return preset(folder / kind, *{"vit": (vit(), "ViT"), "densenet": (densenet(), "DenseNet")}[kind])


@pytest.mark.parametrize("kind", ["vit", "densenet", "file"])
def test_commands_take_a_published_network(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = [f"--weights={network_of(kind, tmp_path)}", f"--image_size={SIZE}"]
    assert embed.main([*weights, *DATA, "--out=e.npz"]) == 0
    features = np.load("e.npz")["features"]
    assert np.isfinite(features).all() and features.std(0).max() > 0
    for command in (knn_eval, probe):
        assert command.main([*weights, *DATA]) == 0
    for command in (linear_eval, finetune):
        assert command.main([*weights, *DATA, *TRAIN, "--base_lr=0.01"]) == 0
    for form in ("keras", "saved_model", "onnx", "tflite"):
        out = {"keras": "m.keras", "saved_model": "m", "onnx": "m.onnx", "tflite": "m.tflite"}[form]
        assert export.main([*weights, f"--format={form}", f"--out={out}"]) == 0
    assert export.main([*weights, "--hub"]) == 0
    (hub,) = tmp_path.glob("hub" if kind == "file" else f"runs/hub-{kind}-*/export/hub")
    hub.rename("hub")
    assert embed.main(["--weights=hub", *DATA, "--out=again.npz"]) == 0
    np.testing.assert_array_equal(np.load("again.npz")["features"], features)


@pytest.mark.parametrize("kind", ["keras:MobileNetV3Small", "vit", "densenet"])
def test_a_network_is_trained_and_used(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = kind if ":" in kind else f"{network_of(kind, tmp_path)}+weights"
    assert pretrain.main([*PRETRAIN, f"--backbone={backbone}", "--workdir=run"]) == 0
    assert report.main(["--workdir=run"]) == 0
    assert embed.main(["--weights=run", "--out=e.npz"]) == 0
    assert neighbours.main(["--embeddings=e.npz", "--query=3"]) == 0


@pytest.mark.parametrize("method", [m for m in METHODS if m != "simsiam"])
@pytest.mark.parametrize("kind", ["keras:MobileNetV3Small", "vit"])
def test_every_method_trains_a_network_of_others(kind, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = kind if ":" in kind else network_of(kind, tmp_path)
    options = [o for o in PRETRAIN if method in ("simsiam", "byol") or "predictor" not in o]
    if method == "distill":
        options = [o for o in options if "--d=" not in o] + [f"--teacher={network_of('file', tmp_path)}"]
    assert pretrain.main([*options, f"--backbone={backbone}", f"--method={method}", "--workdir=run"]) == 0
