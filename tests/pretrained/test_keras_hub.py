"""keras-hub opens presets of our ResNets where this package is missing, and its presets become ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install 'simsiam-tf[kerashub]'")

from sklearn.datasets import load_sample_images

from simsiam_tf import convert as command
from simsiam_tf import nets, open_pretrained
from simsiam_tf.data import AUGMENTATIONS, Augmentation, Views
from simsiam_tf.model_export import export_model, formats
from simsiam_tf.pretrained import backbone_file, keras_hub_presets
from simsiam_tf.pretrained.keras_hub import from_keras_hub, to_keras_hub
from simsiam_tf.runtime.errors import UserError

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


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with ResNet-18 and, in "preset", what `convert` makes of it."""
    keras.mixed_precision.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    rule = {key: tuple(values) for key, values in RULE.items()}
    folder = exported(tmp_path_factory.mktemp("run"), nets.resnet18(), size=96, **rule)
    argv = [f"--weights={folder}", "--layout=keras_hub", f"--out={folder / 'preset'}"]
    assert command.main(argv) == 0
    return folder


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


@pytest.fixture
def preset(workdir, tmp_path):
    return Path(shutil.copytree(workdir / "preset", tmp_path / "preset"))


def change(path, **values):
    content = json.loads(path.read_text())
    content["config"] |= values
    path.write_text(json.dumps(content))


def refusal(preset, capsys, *more):
    out = preset.parent / "out"
    assert command.main([f"--weights={preset}", "--layout=keras_hub", f"--out={out}", *more]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1 and not out.exists()
    return err


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"use_pre_activation": True}, "ResNet v2"),
        ({"block_type": "basic_block_vd"}, "ResNet-vd"),
        ({"stackwise_num_blocks": [2, 2, 2, 3]}, "stackwise_num_blocks=[2, 2, 2, 3]"),
        ({"stackwise_num_filters": [64, 128, 256, 2**30]}, "1073741824"),
        ({"stackwise_num_strides": [1, 2, 2, 1]}, "stackwise_num_strides=[1, 2, 2, 1]"),
        ({"input_conv_kernel_sizes": [3]}, "input_conv_kernel_sizes=[3]"),
        ({"image_shape": [None, None, 2**40]}, "too short for 1099511627776 channels"),
        ({"image_shape": [None, None, True]}, "image_shape=[None, None, True]"),
        ({"image_shape": [None, None, 1]}, "model.weights.h5 is refused"),
        ({"stackwise_num_blocks": {"class_name": "Lambda", "config": {}}}, "Lambda"),
        ({"activation": "gelu"}, "activation=gelu"),
    ],
)
def test_other_networks_are_refused(preset, capsys, values, said):
    change(preset / "config.json", **values)
    assert said in refusal(preset, capsys, "--augmentation=imagenet")


def test_nothing_of_a_preset_is_run(preset, capsys):
    config = json.loads((preset / "config.json").read_text())
    for name, registered in (("Lambda", "Lambda"), ("ResNetBackbone", "Evil>ResNetBackbone")):
        changed = {**config, "class_name": name, "module": "os", "registered_name": registered}
        (preset / "config.json").write_text(json.dumps(changed))
        assert "not keras-hub's ResNetBackbone" in refusal(preset, capsys)
    # A module and a type of numbers that would be imported, had Keras built the network.
    config["module"] = "os"
    config["config"]["dtype"] = {"module": "os", "class_name": "system", "config": {"command": "touch run"}}
    (preset / "config.json").write_text(json.dumps(config))
    assert command.main([f"--weights={preset}", f"--out={preset.parent / 'out'}"]) == 0
    assert not Path("run").exists()


def test_weights_that_are_not_plain_are_refused(preset, capsys):
    path = preset / "model.weights.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "model.weights.h5 is refused" in refusal(preset, capsys)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        shape, name = file[names[0]].shape, names[0]
        values = file[name][...]
        file[name][...] = np.full(shape, np.nan)
    assert "NaN" in refusal(preset, capsys)
    with h5py.File(path, "a") as file:
        file[name][...] = values
        file["more"] = np.zeros(3)
    assert "11186115 values, a resnet18 11186112" in refusal(preset, capsys)
    with h5py.File(path, "a") as file:
        del file["more"], file[name]
        file[name] = h5py.ExternalLink("/etc/passwd", "/x")
    assert "point elsewhere" in refusal(preset, capsys)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_size": None}, "image_size=None"), ({"image_size": [224, 192]}, "image_size=[224, 192]"),
        ({"scale": [0.1, 0.2]}, "scale=[0.1, 0.2]"), ({"scale": 0.0}, "scale"), ({"offset": "x"}, "offset=x"),
        ({"scale": [-1.0, 1.0, 1.0]}, "scale"), ({"offset": [float("nan")] * 3}, "scale"),
    ],
)  # fmt: skip
def test_a_preset_says_how_images_are_preprocessed(preset, capsys, values, said):
    change(preset / "image_converter.json", **values)
    err = refusal(preset, capsys)
    assert said in err and "Pass --augmentation" in err
    (preset / "image_converter.json").unlink()
    assert "image_converter.json is missing" in refusal(preset, capsys)


def test_scale_and_offset_as_single_numbers(preset):
    change(preset / "image_converter.json", scale=1 / 127.5, offset=-1.0, image_size=[64, 64])
    converter = json.loads((preset / "image_converter.json").read_text())["config"]
    views = keras_hub_presets._augmentation(converter, 3, None, preset)
    assert (views.size, views.mean, views.std) == (64, (0.5,) * 3, (0.5,) * 3)
    converter |= {"scale": None, "offset": None}
    views = keras_hub_presets._augmentation(converter, 3, 80, preset)
    np.testing.assert_allclose(views.std, [1 / 255] * 3)
    assert (views.size, views.mean) == (80, (0.0,) * 3)


@pytest.mark.parametrize(
    ("name", "stem", "width", "said"),
    [
        ("resnet10", "cifar", 1, "cifar stem and width 1"), ("resnet10", "small", 1, "small stem"),
        ("resnet10", "imagenet", 0.25, "width 0.25"),
        pytest.param("wide_resnet50", "imagenet", 1, "no wide_resnet50", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_networks_that_keras_hub_lacks(tmp_path, capsys, name, stem, width, said):
    folder = exported(tmp_path / "run", nets.resnet(name, stem=stem, width=width), size=32)
    argv = [f"--weights={folder}", "--layout=keras_hub", f"--out={tmp_path / 'preset'}"]
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1
    assert [*tmp_path.iterdir()] == [folder]


def test_a_preset_appears_only_when_it_was_read_back(workdir, tmp_path, monkeypatch, capsys):
    pretrained, read = open_pretrained(str(workdir)), keras_hub.models.Backbone.from_preset

    def swapped(*args, **kwargs):
        """The network with the second block of a stage in the place of the third."""
        network = read(*args, **kwargs)
        one, other = (network.get_layer(f"stack1_block1_{i}_conv").kernel for i in (1, 2))
        value = one.numpy()
        one.assign(other), other.assign(value)
        return network

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", swapped)
    with pytest.raises(UserError, match="not written, because its features differ"):
        export_model(pretrained, tmp_path / "preset", "keras_hub")
    assert not [*tmp_path.iterdir()]
    monkeypatch.undo()
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "mine.txt").write_text("")
    argv = [f"--weights={workdir}", "--layout=keras_hub", f"--out={tmp_path / 'preset'}", "--overwrite"]
    assert command.main(argv) == 2 and "something else in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--weights=x.pth", "--layout=keras_hub", "--out=y"], "x.pth is a file of PyTorch"),
        (
            ["--weights=resnet_18_imagnet", "--layout=keras_hub", "--out=y"],
            "Did you mean resnet_18_imagenet?",
        ),
        (
            ["--weights=resnet_18_imagenet", "--layout=keras_hub", "--out=y"],
            "could not download it (no network)",
        ),
        (["--weights=hf://a/b", "--layout=keras_hub", "--out=y"], "and pass its folder"),
        (["--weights=x", "--layout=keras_hub", "--out=y.keras"], "must be a folder"),
        (["--weights=x", "--layout=keras_hub", "--stem=cifar", "--out=y"], "has no effect with"),
    ],
)
def test_errors_are_one_line(argv, said, tmp_path, monkeypatch, capsys):
    from keras_hub.src.utils import preset_utils

    def offline(preset, path):
        raise ConnectionError("no network")

    monkeypatch.setattr(preset_utils, "get_file", offline)
    monkeypatch.chdir(tmp_path)
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1 and not [*tmp_path.iterdir()]


def test_a_preset_by_its_name_is_what_keras_hub_downloads(preset, monkeypatch):
    from keras_hub.src.utils import preset_utils

    asked = []
    monkeypatch.setattr(preset_utils, "get_file", lambda name, path: asked.append(path) or str(preset / path))
    assert keras_hub_presets.find_preset("resnet_18_imagenet") == preset
    assert asked == ["config.json", "model.weights.h5", "image_converter.json"]


def test_without_keras_hub_a_line_says_what_to_install(workdir, tmp_path, monkeypatch, capsys):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *more: None if name == "keras_hub" else find(name, *more)
    )
    for argv in ([f"--weights={workdir}", "--layout=keras_hub"], [f"--weights={workdir / 'preset'}"]):
        assert command.main([*argv, f"--out={tmp_path / 'out'}"]) == 2
        assert "pip install 'simsiam-tf[kerashub]'" in capsys.readouterr().err
