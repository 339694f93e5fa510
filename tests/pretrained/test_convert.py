"""Weights from PyTorch and back: features agree on photographs, and weights left out are reported."""

import argparse
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
pytest.importorskip("safetensors", reason="needs safetensors: pip install 'simsiam-tf[convert]'")
pytest.importorskip("PIL")
views = pytest.importorskip(
    "reference_torch.torchvision_views", reason="needs torchvision: simsiam-tf[parity]"
)

from helpers.photographs import TOLERANCE, photographs
from helpers.torch_layouts import heads_of, layout, resnet
from torch import nn
from torchvision import models

from simsiam_tf import convert as command
from simsiam_tf import embed, export, knn_eval, linear_eval, nets, open_pretrained, pretrain
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.torch_weights import from_torch, open_checkpoint, to_torch, write_weights
from simsiam_tf.runtime.errors import UserError


def features(net, images):
    """Of torchvision's network, before any fc."""
    net.fc = nn.Identity()
    with torch.no_grad():
        return net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


PROJECTORS = ("module.encoder.fc.", "neck.", "projector.", "projection_head.")
PREDICTORS = ("module.predictor.", "head.predictor.", "predictor.", "prediction_head.")


def of_head(state, places):
    """The tensors of a head in torch's order, under whatever name."""
    return [tensor for name, tensor in state.items() if name.startswith(places)]


CASES = [
    ("torchvision", "resnet18", None), ("torchvision", "resnet50", None),
    ("facebookresearch", "resnet18", None), ("lightly", "resnet18", None),
    ("solo_learn", "resnet18", 2), ("lightly_small", "resnet18", 1), ("patrickhua", "resnet18", 1),
    ("detectron2", "resnet18", None),
]  # fmt: skip
MORE = [
    ("facebookresearch", "resnet50", None), ("mmselfsup", "resnet18", None),
    ("torchvision", "resnet34", None), ("torchvision", "resnet34", 1), ("torchvision", "resnet50", 1),
    ("mmselfsup", "resnet50", None), ("solo_learn", "resnet50", None),
    ("detectron2", "resnet50", None), ("torchvision", "wide_resnet50_2", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "network", "pad"),
    [CASES[2], *(pytest.param(*c, marks=pytest.mark.slow) for c in (*CASES[:2], *CASES[3:], *MORE))],
)
def test_features_agree_on_photographs(name, network, pad, tmp_path, measured):
    net = resnet(network, pad)
    state = layout(name, net)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "arch": network, "state_dict": state}, path)
    assert command.main([f"--weights={path}", f"--out={tmp_path / 'ours'}"]) == 0
    pretrained = open_pretrained(tmp_path / "ours")
    images = photographs(pretrained.augmentation.size)
    assert images.shape[1] == (32 if pad else 224)
    ours, theirs = pretrained.backbone(images, training=False).numpy(), features(net, images)
    measured("features of photographs", np.abs(ours - theirs).max() / np.abs(theirs).max(), TOLERANCE)
    assert theirs.std() > 0.01 and pretrained.card["layout"] == name
    heads = {part: backbone_file.load_beside(tmp_path / "ours", part) for part in backbone_file.HEADS}
    if name in ("torchvision", "detectron2"):  # which have no heads
        assert set(heads.values()) == {None}
        return
    left = {"solo_learn": {"classifier.weight", "classifier.bias"}}.get(name, set())
    assert set(pretrained.card["left out"]) == left
    p, h = heads_of(name, theirs.shape[1])
    p.load_state_dict(dict(zip(p.state_dict(), of_head(state, PROJECTORS), strict=True)))
    h.load_state_dict(dict(zip(h.state_dict(), of_head(state, PREDICTORS), strict=True)))
    x = np.random.default_rng(0).normal(size=(5, theirs.shape[1])).astype(np.float32)
    with torch.no_grad():
        z = p(torch.from_numpy(x))
        expected = {"projector": z.numpy(), "predictor": h(z).numpy()}
    z = heads["projector"](x, training=False).numpy()
    ours = {"projector": z, "predictor": heads["predictor"](z, training=False).numpy()}
    for part, y in expected.items():
        assert np.abs(ours[part] - y).max() < 1e-5 * np.abs(y).max()
    # In training a bias before BN has no effect, whatever BN's running mean.
    with torch.no_grad():
        y = p.train()(torch.from_numpy(x)).numpy()
    assert np.abs(heads["projector"](x, training=True).numpy() - y).max() < 1e-4 * np.abs(y).max()


@pytest.mark.parametrize(
    "name",
    [name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow) for name in nets.RESNETS],
)
def test_each_resnet_comes_back_as_itself(name):
    backbone = nets.resnet(name, width=0.125)
    again = from_torch(to_torch(backbone))
    assert again.architecture["name"] == name and again.architecture["width"] == 0.125
    assert [v.path for v in again.backbone.weights] == [v.path for v in backbone.weights]
    for ours, theirs in zip(backbone.weights, again.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


WRITTEN = [c for c in CASES if c[1] == "resnet18" and c[0] != "patrickhua"]


@pytest.mark.parametrize(("name", "network", "pad"), [*WRITTEN, ("facebookresearch", "resnet18", None)])
@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pth", marks=pytest.mark.slow)])
def test_written_names_and_values_are_those_of_the_program(name, network, pad, suffix, tmp_path):
    state = layout(name, resnet(network, pad))
    there = from_torch({k: v.numpy() for k, v in state.items()})
    path = write_weights(
        to_torch(there.backbone, name, there.heads), tmp_path / f"weights{suffix}", {"data": "photos"}
    )
    found = open_checkpoint(path).state
    assert set(found) == {k for k in state if not k.startswith(("classifier.", "fc."))}
    # A bias before BN is taken out of BN's running mean: the network computes the same.
    moved = {
        k.replace("6.bias", "7.running_mean"): k
        for k in state
        if k.endswith((".fc.6.bias", "projector.6.bias"))
    }
    for key, value in found.items():
        if key in moved:
            np.testing.assert_array_equal(value, state[key].numpy() - state[moved[key]].numpy())
            assert not found[moved[key]].any()
        elif "num_batches" not in key and key not in moved.values():
            np.testing.assert_array_equal(value, state[key].numpy())


def test_torchvision_loads_our_weights(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = nets.resnet18()
    for v in backbone.weights:
        if v.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            v.assign(np.random.default_rng(0).uniform(0.5, 1, v.shape))
    write_weights(to_torch(backbone), tmp_path / "ours.pth")
    net = models.resnet18(weights=None)
    left = net.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True), strict=False)
    assert set(left.missing_keys) == {"fc.weight", "fc.bias"} and not left.unexpected_keys
    images = photographs(224)
    ours, theirs = backbone(images, training=False).numpy(), features(net.eval(), images)
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < TOLERANCE


@pytest.mark.slow
def test_weights_left_out_are_reported(tmp_path, capsys):
    path = tmp_path / "run.ckpt"
    state = layout("solo_learn", resnet("resnet18", 2))
    state |= {f"momentum_{k}": v for k, v in state.items() if k.startswith("backbone.conv1")}
    torch.save({"state_dict": state}, path)
    assert command.main([f"--weights={path}", f"--out={tmp_path / 'ours'}"]) == 0
    out = capsys.readouterr().out
    network = "resnet18, cifar_pad2 stem, width 1, 3 channels, 512 features"
    parts = ("projector and predictor: --d=32", "classifier.* (2)", "momentum_backbone.conv1.* (1)")
    for said in ("solo-learn", network, "d          32", *parts):
        assert said in out
    card = json.loads((tmp_path / "ours" / "export" / "backbone.json").read_text())
    assert set(card["left out"]) == {"classifier.weight", "classifier.bias", "momentum_backbone.conv1.weight"}


def test_widths_channels_and_stems_are_read(tmp_path):
    for width, channels, stem in ((0.5, 1, "cifar"), (0.25, 3, "imagenet")):
        made = to_torch(nets.resnet10(stem=stem, width=width, channels=channels))
        found = from_torch(made)
        assert found.architecture == {"name": "resnet10", "stem": stem, "width": width, "channels": channels}
    small = to_torch(nets.resnet10(stem="small", width=0.25))
    assert from_torch(small, stem="small").architecture["stem"] == "small"


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path, capsys):
    state = {k: torch.tensor(v) for k, v in to_torch(nets.resnet10(width=0.25)).items()}
    for i, more in enumerate((Bomb(tmp_path / "run"), argparse.Namespace(lr=1))):
        path = tmp_path / f"{i}.pth"
        torch.save({"state_dict": state, "more": more}, path)
        assert command.main([f"--weights={path}", f"--out={tmp_path / 'ours'}"]) == 2
        err = capsys.readouterr().err
        assert "save its weights alone" in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists() and not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("layer1.0.bn1.running_mean"), r"1 missing \(layer1.0.bn1.running_mean\)"),
        (lambda s: s.update({"layer1.0.se.weight": np.ones(3)}), r"1 unknown \(layer1.0.se.weight\)"),
        (lambda s: s.update({"bn1.bias": np.ones(3)}), r"1 of another shape \(bn1.bias\)"),
        (
            lambda s: s.update({"layer3.1.conv1.weight": np.ones((1, 1, 1, 1))}),
            r"basic blocks \(1, 1, 2, 1\) are not a network",
        ),
        (lambda s: s.pop("conv1.weight"), r"fit none of torchvision.*like bn1.*layer1"),
    ],
)
def test_errors_name_the_weights_that_differ(change, said):
    state = to_torch(nets.resnet10(width=0.25))
    change(state)
    with pytest.raises(UserError, match=said):
        from_torch(state, path="x.pth")


def test_damaged_files_are_refused(tmp_path):
    cut = write_weights(to_torch(nets.resnet10(width=0.25)), tmp_path / "a.safetensors")
    cut.write_bytes(cut.read_bytes()[:1000])
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"noise{suffix}"
        path.write_bytes(os.urandom(300))
        with pytest.raises(UserError, match="cannot be read|is refused"):
            open_checkpoint(path)
    with pytest.raises(UserError, match="cannot be read"):
        open_checkpoint(cut)
    with pytest.raises(UserError, match="no such file"):
        open_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match="NaN or infinite values"):
        open_checkpoint(
            write_weights({"conv1.weight": np.full((2, 2), np.nan, np.float32)}, tmp_path / "nan.pth")
        )
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no weights by name"):
        open_checkpoint(tmp_path / "list.pth")
    assert not list(tmp_path.glob(".writing*"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--weights: missing"),
        (["--weights=a.pth"], "--out: missing"),
        (["--weights=a.pth", "--out=b.pth"], "must be a folder"),
        (["--weights=runs/x", "--out=b"], "must end in .safetensors or .pth"),
        (["--weights=a.pth", "--out=b"], "no such file"),
        (["--weights=a.pth", "--out=b", "--layout=pytroch"], "no such value"),
    ],
)
def test_bad_input_gets_one_line(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(flags) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_command_takes_converted_weights(tmp_path, capsys):
    """kNN, embedding, export, report's opening, linear evaluation, and pre-training that starts from them."""
    path = tmp_path / "run.ckpt"
    torch.save({"state_dict": layout("solo_learn", resnet("resnet18", 2))}, path)
    ours = tmp_path / "ours"
    assert command.main([f"--weights={path}", f"--out={ours}", "--image_size=8"]) == 0
    photos = tmp_path / "photos"
    for i in range(8):
        folder = photos / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(i).integers(0, 255, [9, 8, 3], np.uint8)
        (folder / f"{i}.jpg").write_bytes(tf.io.encode_jpeg(picture).numpy())
    common = [f"--weights={ours}", f"--data=folder:{photos}"]
    assert knn_eval.main([*common, "--k=1"]) == 0
    assert embed.main([*common, f"--out={tmp_path / 'x.npz'}"]) == 0
    assert export.main([f"--weights={ours}", "--format=keras"]) == 0
    small = ["--batch_size=4", "--epochs=1", "--strategy=one_device", f"--workdir={tmp_path / 'linear'}"]
    assert linear_eval.main([*common, *small]) == 0
    capsys.readouterr()
    argv = ["--backbone=resnet18", "--stem=cifar_pad2", f"--weights={ours}", "--dry_run", "--batch_size=4"]
    argv += [f"--data=folder:{photos}", "--augmentation=cifar", "--monitor=none", "--d=16"]
    assert pretrain.main(argv) == 2  # its heads are others
    assert "--d=32" in (err := capsys.readouterr().err) and "--weights_heads=false" in err
    assert pretrain.main([*argv, "--weights_heads=false"]) == 0
