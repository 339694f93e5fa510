"""keras-hub opens presets of our ResNets where this package is missing, and its presets become ours."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install 'simsiam-tf[kerashub]'")

from helpers.presets import RULE, randomise, run_with_preset
from sklearn.datasets import load_sample_images

from simsiam_tf import convert as command
from simsiam_tf import nets, open_pretrained
from simsiam_tf.data import AUGMENTATIONS, Augmentation, Views
from simsiam_tf.model_export import formats
from simsiam_tf.pretrained import backbone_file, keras_hub_presets
from simsiam_tf.pretrained.keras_hub import from_keras_hub, to_keras_hub


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return run_with_preset(tmp_path_factory.mktemp("run"))


def closeness(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


ELSEWHERE = """
import sys
sys.modules["simsiam_tf"] = None  # every import of it fails
import numpy as np
images, ready, out = np.load(sys.argv[1]), np.load(sys.argv[2]), sys.argv[3]
{code}
maps = backbone.predict(ready, verbose=0)
np.savez(out, features=features, maps=maps, count=backbone.count_params())
"""


@pytest.mark.slow
def test_another_process_opens_the_preset_by_the_code_of_its_readme(workdir, tmp_path):
    pretrained = open_pretrained(str(workdir))
    images = formats.random_images(2, 96, 96, 3, seed=1)
    ready = pretrained.prepare(load_sample_images().images).numpy()
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "ready.npy", ready)
    code = (workdir / "preset" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = ELSEWHERE.replace("{code}", code)
    paths = [str(tmp_path / name) for name in ("images.npy", "ready.npy", "out.npz")]
    environment = {**os.environ, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code, *paths],
        capture_output=True, text=True, cwd=workdir / "preset", env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs = np.load(tmp_path / "out.npz")
    ours = pretrained.backbone(ready, training=False).numpy()
    assert theirs["maps"].shape == (2, 3, 3, 512) and ours.std() > 0.1
    assert closeness(theirs["maps"].mean((1, 2)), ours) < 1e-5
    assert theirs["count"] == pretrained.backbone.count_params() == 11_186_112
    mean, std = (np.array(RULE[key], np.float32) for key in ("mean", "std"))
    ours = pretrained.backbone((images / 255 - mean) / std, training=False).numpy()
    assert closeness(theirs["features"], ours) < 1e-5  # images of the very size are only normalised


@pytest.mark.slow
def test_a_preset_becomes_ours_and_again_the_same_preset(workdir, tmp_path, capsys):
    preset = workdir / "preset"
    shutil.copy(preset / "model.weights.h5", tmp_path / "task.weights.h5")
    assert command.main([f"--weights={preset}", "--layout=keras_hub", f"--out={tmp_path / 'ours'}"]) == 0
    assert "resnet18, imagenet stem, width 1, 3 channels, 512 features" in capsys.readouterr().out
    one, two = (open_pretrained(str(folder)) for folder in (workdir, tmp_path / "ours"))
    for a, b in zip(one.backbone.weights, two.backbone.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert two.augmentation == one.augmentation  # a run's pixel rule survives both ways
    digest = backbone_file.sha256(preset / "model.weights.h5")
    assert two.card["converted from"] == {"file": str(preset), "sha256": digest}
    assert two.card["architecture"] == {"name": "resnet18", "stem": "imagenet", "width": 1.0, "channels": 3}
    argv = [f"--weights={preset}", f"--out={tmp_path / 'ours'}"]
    assert command.main(argv) == 2 and "pass --overwrite" in capsys.readouterr().err
    argv += ["--overwrite", "--augmentation=cifar", "--image_size=48"]
    assert command.main(argv) == 0  # a preset is known without --layout
    other = open_pretrained(str(tmp_path / "ours")).augmentation
    assert (other.size, other.mean) == (48, AUGMENTATIONS["cifar"].mean)


SLOW = [pytest.param(name, 3, marks=pytest.mark.slow) for name in ("resnet34", "resnet50", "resnet101")]


@pytest.mark.parametrize(("name", "channels"), [("resnet10", 1), ("bottlenecks", 3), *SLOW])
def test_both_networks_compute_the_same(name, channels, tmp_path, monkeypatch):
    monkeypatch.setitem(nets.RESNETS, "bottlenecks", ("bottleneck", (1, 1, 1, 1)))
    ours = randomise(nets.resnet(name, channels=channels))
    theirs = to_keras_hub(ours)
    images = np.random.default_rng(0).normal(size=(2, 97, 70, channels)).astype("float32")
    expected = np.asarray(theirs(images, training=False)).mean((1, 2))
    assert closeness(ours(images, training=False).numpy(), expected) < 1e-5
    assert theirs.count_params() == ours.count_params()
    theirs.save_to_preset(str(tmp_path / "preset"))
    back, architecture = from_keras_hub(tmp_path / "preset")
    assert architecture == {"name": name, "stem": "imagenet", "width": 1.0, "channels": channels}
    for a, b in zip(ours.weights, back.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_keras_hub_trains_a_classifier_on_a_preset(workdir):
    preset = str(workdir / "preset")
    classifier = keras_hub.models.ImageClassifier.from_preset(preset, num_classes=3)
    images = formats.random_images(1, 300, 260, 3, seed=2)
    assert classifier.predict(images, verbose=0).shape == (1, 3)
    prepared = classifier.preprocessor(images)
    assert prepared.shape == (1, 96, 96, 3) and abs(float(np.mean(prepared))) < 1.5


@pytest.mark.parametrize("size", [32, 96])
def test_the_image_converter_is_near_our_preprocessing(size):
    """Small images are resized alike; of larger ones ours takes the middle 224/256."""
    augmentation = Augmentation(size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    converter = keras_hub_presets.image_converter(augmentation, 3)
    images = formats.random_images(2, 120, 150, 3, seed=0)
    ready = np.asarray(converter(images.astype("float32")))
    assert ready.shape == (2, size, size, 3)
    if size == 32:
        views = Views(augmentation, count=1)
        prepared = np.stack([views.normalise(views.evaluation_view(tf.constant(i))) for i in images])
        levels = np.abs(ready - prepared) * 255 * np.array(augmentation.std)
        assert levels.max() < 1.01  # a level, by which ours are rounded after the width and after the height
    else:
        resized = tf.image.resize(images[:, :, 15:135], (96, 96), antialias=True).numpy()
        expected = (resized / 255 - np.array(augmentation.mean)) / np.array(augmentation.std)
        np.testing.assert_allclose(ready, expected, atol=1e-4)
