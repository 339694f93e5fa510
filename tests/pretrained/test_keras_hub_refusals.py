"""What keras-hub's presets and networks are refused for, each in one line that says why."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install 'simsiam-tf[kerashub]'")

from helpers.presets import exported, run_with_preset

from simsiam_tf import convert as command
from simsiam_tf import nets, open_pretrained
from simsiam_tf.model_export import export_model
from simsiam_tf.pretrained import keras_hub_presets
from simsiam_tf.runtime.errors import UserError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return run_with_preset(tmp_path_factory.mktemp("run"))


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


@pytest.mark.slow
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
