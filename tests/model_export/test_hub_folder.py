"""timm and torchvision read a folder for the Hub, by the code of its README."""

import dataclasses
import json
import shutil
import types
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
pytest.importorskip("safetensors", reason="needs safetensors: pip install 'simsiam-tf[convert]'")
pytest.importorskip("reference_torch.torchvision_views", reason="needs torchvision: simsiam-tf[parity]")

from helpers import small_backbones
from helpers.photographs import TOLERANCE, photographs

from simsiam_tf import export as command
from simsiam_tf import nets, open_pretrained
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.model_export import export_model, hub_folder
from simsiam_tf.pretrained import backbone_file, torch_weights
from simsiam_tf.pretrained.torch_weights import torch_files
from simsiam_tf.runtime.errors import UserError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    keras.mixed_precision.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    backbone, rng = nets.resnet18(), np.random.default_rng(0)
    for v in backbone.weights:
        if v.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            v.assign(rng.uniform(0.5, 1, v.shape))
    views = json.loads(json.dumps(dataclasses.asdict(AUGMENTATIONS["imagenet"])))
    backbone_file.export_network(backbone, folder, {"views": views, "data": "photos", "step": 9})
    assert command.main([f"--weights={folder}", "--hub", f"--out={folder / 'hub'}"]) == 0
    return folder


@pytest.mark.slow
def test_a_folder_of_five_files(workdir):
    assert {p.name for p in (workdir / "hub").iterdir()} == {
        "backbone.keras", "backbone.json", "model.safetensors", "config.json", "README.md",
    }  # fmt: skip
    card = (workdir / "hub" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\n") and "photos" in card and "- steps: 9" in card
    config = json.loads((workdir / "hub" / "config.json").read_text())
    assert config["architecture"] == "resnet18" and config["pretrained_cfg"]["input_size"] == [3, 224, 224]


@pytest.mark.slow
def test_torchvision_is_named_for_colours_alone(workdir):
    """Its networks take no other images."""
    opened = open_pretrained(workdir)
    for channels in (1, 3):
        given: Any = types.SimpleNamespace(
            card=opened.card,
            backbone=opened.backbone,
            channels=channels,
            features=512,
            augmentation=AUGMENTATIONS["imagenet"],
        )
        assert ("With torchvision" in hub_folder.hub_readme(given, "resnet18", "0")) == (channels == 3)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["timm", "torchvision"])
def test_the_code_of_the_readme_gives_our_features(workdir, monkeypatch, program):
    pytest.importorskip(program)
    blocks = (workdir / "hub" / "README.md").read_text().split("```python\n")[1:]
    (code,) = (b.split("```")[0] for b in blocks if f"{program}." in b.split("```")[0])
    assert len(code.splitlines()) == 3
    monkeypatch.chdir(workdir / "hub")
    names = {}
    exec(code, names)  # noqa: S102
    images = photographs(224)
    with torch.no_grad():
        theirs = names["net"].eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = open_pretrained(workdir).backbone(images, training=False).numpy()
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < TOLERANCE
    if program == "timm":
        assert "224" in str(names["transform"]) and "0.485" in str(names["transform"])


@pytest.mark.slow
def test_each_file_with_weights_is_read_back(workdir, tmp_path):
    """Features are those of the file that is wrong, whichever it is."""
    pretrained, images = open_pretrained(workdir), np.full((1, 40, 50, 3), 90, np.uint8)
    right = hub_folder.read_features(pretrained, workdir / "hub", images)
    folder = shutil.copytree(workdir / "hub", tmp_path / "hub")
    state = torch_weights.open_checkpoint(folder / "model.safetensors").state
    state["bn1.bias"] = state["bn1.bias"] + 1
    torch_weights.write_weights(state, folder / "model.safetensors", {})
    wrong = hub_folder.read_features(pretrained, folder, images)
    assert np.abs(wrong - right).max() > 0.01 * np.abs(right).max()
    shutil.copy(workdir / "hub" / "model.safetensors", folder)
    backbone, card = torch_weights.from_torch(state).backbone, {"views": pretrained.card["views"]}
    backbone_file.export_network(backbone, folder, card, Path("backbone.keras"))
    assert (
        np.abs(hub_folder.read_features(pretrained, folder, images) - wrong).max()
        < 1e-5 * np.abs(wrong).max()
    )


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_timms_networks_are_converted(name, measured):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=7)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
    found = torch_weights.from_torch({k: v.numpy() for k, v in net.state_dict().items()})
    assert found.program == "torchvision" and found.left_out == ("fc.weight", "fc.bias")
    images = photographs(224)
    with torch.no_grad():
        net.reset_classifier(0)
        theirs = net.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = found.backbone(images, training=False).numpy()
    measured("features of photographs, timm", np.abs(ours - theirs).max() / np.abs(theirs).max(), TOLERANCE)


@pytest.mark.slow
def test_networks_unknown_to_timm_are_for_keras_alone(tmp_path):
    folder = small_backbones.exported(tmp_path / "run", AUGMENTATIONS["cifar"], channels=3)
    assert command.main([f"--weights={folder}", "--hub"]) == 0
    written = folder / "export" / "hub"
    assert {p.name for p in written.iterdir()} == {"backbone.keras", "backbone.json", "README.md"}
    card = (written / "README.md").read_text()
    assert "library_name: keras\n" in card and "timm" not in card and "torchvision" not in card


@pytest.mark.slow
def test_existing_files_are_kept(workdir, tmp_path):
    pretrained = open_pretrained(workdir)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="something else in it"):
        export_model(pretrained, tmp_path, "hub", overwrite=True)
    with pytest.raises(UserError, match="exists. Choose another, or pass `overwrite`"):
        export_model(pretrained, workdir / "hub", "hub")
    before = torch_files.open_checkpoint(workdir / "hub" / "model.safetensors").state
    export_model(pretrained, workdir / "hub", "hub", overwrite=True)
    after = torch_files.open_checkpoint(workdir / "hub" / "model.safetensors").state
    assert before.keys() == after.keys() and all((before[n] == after[n]).all() for n in before)


@pytest.mark.slow
def test_format_and_hub_exclude_each_other(workdir, capsys):
    assert command.main([f"--weights={workdir}", "--hub", "--format=onnx"]) == 2
    assert "--format=onnx has no effect with --hub" in capsys.readouterr().err
