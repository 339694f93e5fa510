"""The names of a checkpoint tell its program, the network to take and the stem."""

import shlex

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
pytest.importorskip("safetensors", reason="needs safetensors: pip install 'simsiam-tf[convert]'")
pytest.importorskip("reference_torch.torchvision_views", reason="needs torchvision: simsiam-tf[parity]")

from helpers.torch_layouts import layout, resnet

from simsiam_tf import convert, nets
from simsiam_tf.command_line.cli import parse
from simsiam_tf.config import PretrainConfig
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.torch_layouts import find_networks, program_of, strip_wrappers
from simsiam_tf.pretrained.torch_weights import to_torch

PLACES = {"conv1": "0", "bn1": "1", "layer1": "3", "layer2": "4", "layer3": "5", "layer4": "6"}


def small(seed=0, **more):
    """A small ResNet of ours with its own weights, by torchvision's names as tensors."""
    keras.utils.set_random_seed(seed)
    net = nets.resnet10(**{"stem": "cifar", "width": 0.125, **more})
    return {k: torch.from_numpy(np.array(v)) for k, v in to_torch(net).items()}


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def children(state):
    """As an nn.Sequential of a network's children names them."""
    return {k.replace(k.split(".")[0], PLACES[k.split(".")[0]], 1): v for k, v in state.items()}


A, B = small(0), small(1)
QUEUE = {"module.queue": torch.zeros(2, 2)}
CHECKPOINTS = {  # name: (file, the network that is taken, said of the other)
    "moco": ({"state_dict": {**under("module.encoder_k.", B), **under("module.encoder_q.", A), **QUEUE}},
             "encoder_k"),
    "moco v3": ({"state_dict": {**under("module.momentum_encoder.", B), **under("module.base_encoder.", A)}},
                "momentum_encoder"),
    "byol": ({"target_encoder.net." + k: v for k, v in B.items()} | under("online_encoder.net.", A),
             "target_encoder.net"),
    "dino": ({"student": under("module.backbone.", B), "teacher": under("backbone.", A), "epoch": 3},
             "student.backbone"),
    "timm's average": ({"state_dict": B, "state_dict_ema": A}, "state_dict"),
    "deit's average": ({"model": B, "model_ema": A, "optimizer": {"state": {}}}, "model"),
    "solo-learn's momentum": ({"state_dict": {**under("momentum_backbone.", B), **under("backbone.", A),
                                              "classifier.weight": torch.zeros(3, 64)}}, "momentum_backbone"),
    "compiled": (under("_orig_mod.", A), None),
    "compiled inside": (under("module.net._orig_mod.", A) | {"predictor.0.weight": torch.zeros(3, 4)}, None),
    "a wrapper": ({"state_dict": under("model.", A)}, None),
    "wrappers": ({"checkpoint": {"state_dict": under("a.b.net.", A)}}, None),
    "children": ({"state_dict": children(A)}, None),
    "children of net": (under("net.", children(A)), None),
    "shortcuts": ({k.replace("downsample", "shortcut"): v for k, v in A.items()}, None),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [n if n == "byol" else pytest.param(n, marks=pytest.mark.slow) for n in CHECKPOINTS],
)
def test_a_network_is_found_under_any_prefix(name, tmp_path, capsys):
    content, other = CHECKPOINTS[name]
    torch.save(content, tmp_path / "c.pth")
    stem = ["--stem=cifar"] if name == "solo-learn's momentum" else []
    assert convert.main([f"--weights={tmp_path / 'c.pth'}", f"--out={tmp_path / 'a'}", *stem]) == 0
    said = capsys.readouterr().out
    command = said.splitlines()[-1].partition("  to train   python -m simsiam_tf.pretrain ")[2]
    begun = parse(PretrainConfig, shlex.split(command.replace("--data=…", "--data=digits")))
    assert begun.weights == str(tmp_path / "a") and begun.recipe == "auto"
    assert equal(tmp_path / "a", A)
    assert ("can choose another" in said) == (other is not None)
    if other is not None:
        assert said.splitlines()[1].endswith(f"--prefix can choose another: {other}")
        argv = [
            f"--weights={tmp_path / 'c.pth'}",
            f"--out={tmp_path / 'b'}",
            f"--prefix={other}",
            "--stem=cifar",
        ]
        assert convert.main(argv) == 0
        assert equal(tmp_path / "b", B)


def equal(folder, state):
    found = to_torch(backbone_file.load_backbone(str(folder)))
    assert found.keys() == state.keys()
    return all((found[k] == state[k].numpy()).all() for k in found)


def test_an_ambiguous_network_needs_a_prefix(tmp_path, capsys):
    torch.save({"left.net": A, "right.net": B}, tmp_path / "c.pth")
    argv = [f"--weights={tmp_path / 'c.pth'}", f"--out={tmp_path / 'a'}"]
    for more, said in (
        ([], "left.net, right.net. Pass one of them as --prefix"),
        (["--prefix=middle"], "fits no network of"),
        (["--prefix=net"], "c.pth. There are left.net, right.net."),
    ):
        assert convert.main([*argv, *more]) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "a").exists()
    assert convert.main([*argv, "--prefix=right.net."]) == 0 and equal(tmp_path / "a", B)
    torch.save({"backbone": A, "online": {"0": A}}, tmp_path / "c.pth")  # one network by two names
    assert convert.main([*argv, "--overwrite", "--stem=cifar"]) == 0 and equal(tmp_path / "a", A)


@pytest.mark.slow
def test_an_unknown_stem_is_required_or_reported(tmp_path, capsys):
    classifier = {"classifier.weight": torch.zeros(3, 64)}
    fc = torch.zeros(4, 64)
    cases = (
        (under("backbone.", A), None, "Pass --stem=cifar (stride 1, padding 1)"),
        (
            under("backbone.", A) | {"projector.0.weight": fc},
            None,
            "--stem=cifar_pad2 (padding 2: solo-learn)",
        ),
        (under("backbone.", A) | {"projector.0.weight": fc} | classifier, "cifar_pad2", "as solo-learn's\n"),
        (under("backbone.", A) | {"projector.layer1.0.weight": fc}, "cifar", "stride 1, padding 1\n"),
        (A, "cifar", "assumed, since weights do not show it: pass --stem if it is wrong"),
    )
    for i, (state, stem, said) in enumerate(cases):
        torch.save({"state_dict": state}, tmp_path / f"{i}.pth")
        status = convert.main([f"--weights={tmp_path / f'{i}.pth'}", f"--out={tmp_path / str(i)}"])
        out, err = capsys.readouterr()
        assert status == (0 if stem else 2) and said in (out if stem else err)
        if stem:
            assert backbone_file.read_card(tmp_path / str(i))["architecture"]["stem"] == stem
    # What we write ourselves says it.
    keras.utils.set_random_seed(0)
    backbone_file.export_network(nets.resnet10(stem="small", width=0.125), tmp_path, {})
    for suffix, name in ((".pth", "solo_learn"), (".safetensors", "torchvision")):
        file = tmp_path / f"ours{suffix}"
        assert convert.main([f"--weights={tmp_path}", f"--out={file}", f"--layout={name}"]) == 0
        assert convert.main([f"--weights={file}", f"--out={tmp_path / ('ours' + name)}"]) == 0
        assert backbone_file.read_card(tmp_path / f"ours{name}")["architecture"]["stem"] == "small"


def program(names):
    (network,) = find_networks(names)
    return program_of(network, names)


def test_names_tell_the_program():
    for name, network, pad in (("facebookresearch", "resnet18", None), ("lightly_small", "resnet18", 1)):
        assert program(list(map(strip_wrappers, layout(name, resnet(network, pad))))) == name

    def net(prefix, *more):
        return [f"{prefix}conv1.weight", f"{prefix}layer1.0.conv1.weight", *more]

    assert program(net("backbone.", "projection_head.layers.0.weight")) == "lightly"  # fc = Identity()
    assert program(net("encoder.", "projector.0.weight")) == "solo_learn"  # before its version 1.0
    assert program(net("backbone.", "projector.layer1.0.weight")) == "patrickhua"
    assert find_networks(["features.0.weight"]) == []
