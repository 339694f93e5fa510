"""Backbones with heads from PyTorch and back: a run of either program continues in the other."""

import contextlib
import io
import json
import shlex

import keras
import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
pytest.importorskip("safetensors", reason="needs safetensors: pip install 'simsiam-tf[convert]'")
pytest.importorskip("reference_torch.torchvision_views", reason="needs torchvision: simsiam-tf[parity]")

from helpers.torch_layouts import Modules, narrow, predictor, projector, randomise_statistics, resnet
from torch import nn
from torchvision import models

from simsiam_tf import convert, nets, optimizers, pretrain
from simsiam_tf.command_line.cli import parse
from simsiam_tf.config import PretrainConfig
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.torch_weights import to_torch
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run


def official(d=32, hidden=8, width=512, net=None):
    """The model that facebookresearch/simsiam's checkpoints are of."""
    net = net or models.resnet18(weights=None)
    net.fc = projector([width, width, width, d], last_bias=True, affine=False)
    net.fc[6].bias.requires_grad = False
    return nn.DataParallel(Modules(encoder=net, predictor=predictor(d, hidden)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of the official code, and the folder that it was converted to."""
    folder = tmp_path_factory.mktemp("official")
    torch.manual_seed(3)
    model = official(net=resnet("resnet18"))
    groups = [{"lr": 0.05, "fix_lr": False, "params": []}, {"lr": 0.1, "fix_lr": True, "params": []}]
    checkpoint = {"epoch": 40, "arch": "resnet18", "state_dict": model.state_dict()}
    checkpoint["optimizer"] = {"param_groups": groups, "state": {}}
    torch.save(checkpoint, folder / "checkpoint_0039.pth.tar")
    argv = [f"--weights={folder / 'checkpoint_0039.pth.tar'}", f"--out={folder / 'ours'}"]
    with contextlib.redirect_stdout(io.StringIO()) as report:
        assert convert.main(argv) == 0
    (folder / "report.txt").write_text(report.getvalue())
    return folder, model


def test_the_command_that_continues_has_the_options_that_the_checkpoint_tells(run):
    """The official code marks the predictor's parameters as of a constant rate: --fix-pred-lr."""
    folder, _ = run
    report = (folder / "report.txt").read_text()
    assert "0.1 at first, and always for the predictor" in report
    command = report.splitlines()[-1]
    for flag in ("--start_epoch=40", "--lr_update=epoch", "--predictor_lr=constant"):
        assert flag in command.split()
    assert "--epochs=… --batch_size=… --base_lr=… " in command
    argv = command.split("simsiam_tf.pretrain ")[1].replace("--data=…", "--data=digits")
    argv = argv.replace("=…", "=80", 1).replace("=…", "=16", 1).replace("=…", "=1.6")
    config = parse(PretrainConfig, shlex.split(argv))
    assert (config.epochs, config.predictor_lr, config.d) == (80, "constant", 32)


def test_official_linear_evaluation_loads_our_file(run, tmp_path):
    folder, model = run
    path = tmp_path / "ours.pth.tar"
    assert convert.main([f"--weights={folder / 'ours'}", f"--out={path}", "--layout=facebookresearch"]) == 2
    path = tmp_path / "ours.pth"
    assert convert.main([f"--weights={folder / 'ours'}", f"--out={path}", "--layout=facebookresearch"]) == 0
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    assert checkpoint["epoch"] == 40 and checkpoint["arch"] == "resnet18"
    begin = "module.encoder"
    state = {
        name[len(begin) + 1 :]: tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(begin) and not name.startswith(f"{begin}.fc")
    }
    net = models.resnet18(weights=None)
    assert set(net.load_state_dict(state, strict=False).missing_keys) == {"fc.weight", "fc.bias"}
    images = torch.randn(2, 3, 64, 64)
    net.fc = nn.Identity()
    whole = official().eval()
    whole.load_state_dict(checkpoint["state_dict"])  # strict, as where its pre-training is resumed
    with torch.no_grad():
        z = whole.module.encoder(images)
        expected = model.module.encoder(images)
        torch.testing.assert_close(whole.module.predictor(z), model.module.predictor(expected))
        torch.testing.assert_close(z, expected)
        features = net.eval()(images)
        torch.testing.assert_close(model.module.encoder.fc(features), expected)


@pytest.mark.slow
def test_solo_learns_linear_evaluation_loads_our_file(run, tmp_path, capsys):
    folder, model = run
    path = tmp_path / "ours.pth"
    assert convert.main([f"--weights={folder / 'ours'}", f"--out={path}"]) == 0
    assert "left out   projector, predictor, which have no names in this layout" in capsys.readouterr().out
    argv = [f"--weights={folder / 'ours'}", f"--out={path}", "--layout=solo_learn", "--overwrite"]
    assert convert.main(argv) == 0
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = {
        name.replace("encoder", "backbone").replace("backbone.", ""): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if "encoder" in name or "backbone" in name
    }
    net = models.resnet18(weights=None)
    net.fc = nn.Identity()
    left = net.load_state_dict(state, strict=False)
    assert not left.missing_keys and not left.unexpected_keys
    parts = Modules(projector=projector([512, 512, 512, 32], True, affine=False), predictor=predictor(32, 8))
    left = parts.load_state_dict(checkpoint["state_dict"], strict=False)
    assert not left.missing_keys and all(name.startswith("backbone.") for name in left.unexpected_keys)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        z = parts.eval().projector(net.eval()(images))
        torch.testing.assert_close(z, model.module.encoder(images))


FITTING = ["--d=32", "--projector_hidden=512", "--predictor_hidden=8", "--output_affine=false"]


@pytest.mark.slow
def test_pretraining_begins_with_converted_heads(run):
    folder, _ = run
    argv = ["--backbone=resnet18", "--stem=imagenet", f"--weights={folder / 'ours'}"]

    def built(*more):
        return build_run.build_model(parse(PretrainConfig, [*argv, *more]), channels=3, size=32)

    model = built(*FITTING)
    assert model.started == "backbone, projector, predictor"
    for name in backbone_file.HEADS:
        for ours, theirs in zip(
            getattr(model, name).get_weights(),
            backbone_file.load_beside(folder / "ours", name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    flags = "Pass d=32 projector_layers=3 projector_hidden=512 predictor_hidden=8 bn=default "
    with pytest.raises(UserError, match=f"{flags}output_affine=false, or weights_heads=false"):
        built("--d=16")
    assert built("--d=16", "--weights_heads=false").started == "backbone"


@pytest.mark.parametrize("method", ["simclr", pytest.param("byol", marks=pytest.mark.slow)])
def test_heads_without_an_output_shift_are_written(tmp_path, capsys, method):
    """SimCLR's output BN has γ alone, which torch's cannot: its β is 0. BYOL's output has neither."""
    config = ["--backbone=resnet10", "--stem=small", "--width=0.125", "--d=16", f"--method={method}"]
    made = build_run.build_model(parse(PretrainConfig, config), channels=1, size=8)
    backbone_file.export_networks({"backbone": made.backbone, "projector": made.projector}, tmp_path, {})
    out = tmp_path / "x.pth"
    assert convert.main([f"--weights={tmp_path}", f"--out={out}", "--layout=facebookresearch"]) == 0
    state = torch.load(out, weights_only=True)["state_dict"]
    last = max(name for name in state if ".fc." in name and name.endswith(".weight"))
    assert ("its output BN has" in capsys.readouterr().out) == (method == "simclr")
    if method == "simclr":
        assert (state[last.replace("weight", "bias")] == 0).all() and (state[last] == 1).all()


@pytest.mark.slow
def test_heads_of_our_own_runs_are_copied_on_request_alone(tmp_path):
    config = ["--backbone=resnet10", "--stem=small", "--width=0.125", "--d=16"]
    made = build_run.build_model(parse(PretrainConfig, [*config, "--seed=5"]), channels=1, size=8)
    parts = {"backbone": made.backbone, "projector": made.projector, "predictor": made.predictor}
    backbone_file.export_networks(parts, tmp_path, {"configuration": {"d": 16}})
    config.append(f"--weights={tmp_path}")
    for asked, flags in (("auto", []), ("false", []), ("true", []), ("true", ["--predictor=none"])):
        argv = [*config, f"--weights_heads={asked}", *flags]
        model = build_run.build_model(parse(PretrainConfig, argv), channels=1, size=8)
        same = (model.projector.get_weights()[0] == made.projector.get_weights()[0]).all()
        assert same == (asked == "true")
        assert (model.backbone.get_weights()[0] == made.backbone.get_weights()[0]).all()
    with pytest.raises(UserError, match="Pass d=16, or weights_heads=false"):
        argv = [*config, "--weights_heads=true", "--d=32"]
        build_run.build_model(parse(PretrainConfig, argv), channels=1, size=8)
    # A head of another folder is none of this backbone.
    other = build_run.build_model(parse(PretrainConfig, [*config[:4], "--seed=6"]), channels=1, size=8)
    backbone_file.export_network(
        other.projector, tmp_path, {}, backbone_file.EXPORTED.with_name("projector.keras")
    )
    with pytest.raises(UserError, match="belongs to another backbone"):
        build_run.build_model(parse(PretrainConfig, [*config, "--weights_heads=true"]), channels=1, size=8)
    # A copy of the heads begins as they are.
    backbone_file.export_networks(parts, tmp_path, {})
    model = build_run.build_model(
        parse(PretrainConfig, [*config, "--weights_heads=true", "--alternate=2"]), channels=1, size=8
    )
    for ours, copy in zip(model.projector.weights, model.assigned.projector.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), copy.numpy())
    # Without heads the next export has none.
    backbone_file.export_networks({"backbone": made.backbone}, tmp_path, {})
    assert {p.name for p in (tmp_path / "export").iterdir()} == {"backbone.keras", "backbone.json"}
    with pytest.raises(UserError, match="has no projector and no predictor"):
        build_run.build_model(parse(PretrainConfig, [*config, "--weights_heads=true"]), channels=1, size=8)


def their_step(model, optimizer, views):
    x1, x2 = (torch.tensor(x.transpose(0, 3, 1, 2).astype("float64")) for x in views)
    z1, z2 = model.module.encoder(x1), model.module.encoder(x2)
    p1, p2 = model.module.predictor(z1), model.module.predictor(z2)
    cosine = nn.CosineSimilarity(dim=1)
    loss = -(cosine(p1, z2.detach()).mean() + cosine(p2, z1.detach()).mean()) / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True])
def test_a_run_of_the_official_code_continues_with_its_momentum(tmp_path, fixed, measured):
    """Three steps there, then three both there and here: the same losses and weights.

    β is large so that few activations lie at ReLU's kink, where the last bit decides about a gradient.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = official(d=64, hidden=32, width=64, net=randomise_statistics(narrow())).double().train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            nn.init.uniform_(part.bias, 1, 3)
    groups = model.parameters()
    if fixed:
        groups = [{"params": model.module.encoder.parameters(), "fix_lr": False},
                  {"params": model.module.predictor.parameters(), "fix_lr": True}]  # fmt: skip
    optimizer = torch.optim.SGD(groups, 0.002, momentum=0.9, weight_decay=1e-4)

    def views():
        patches = rng.normal(size=(16, 4, 4, 3)) + rng.normal(size=(16, 1, 1, 3))
        images = np.kron(patches, np.ones((1, 8, 8, 1)))
        pair = np.stack([images, images[:, :, ::-1]])
        return (pair + rng.normal(0, 0.3, pair.shape)).astype("float32")

    for _ in range(3):
        their_step(model, optimizer, views())
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"epoch": 10, "arch": "resnet18", **state}, tmp_path / "c.pth.tar")
    assert convert.main([f"--weights={tmp_path / 'c.pth.tar'}", f"--out={tmp_path / 'ours'}"]) == 0
    argv = f"""--data=digits --backbone=resnet10 --stem=cifar --width=0.125 --weights={tmp_path / "ours"}
        --d=64 --projector_hidden=64 --predictor_hidden=32 --output_affine=false --start_epoch=10
        --epochs=20 --batch_size=16"""
    config = parse(PretrainConfig, argv.split())
    ours = build_run.build_model(config, channels=3, size=32)
    ours.compile(optimizers.SGD(0.002, 0.9, 1e-4))
    first, words = build_run.start_from_weights(ours, config, images=160)
    assert first == 100 == int(ours.optimizer.iterations) and words.endswith("their momentum, epoch 10")
    step = tf.function(ours.step)
    worst = 0.0
    for _ in range(3):
        pair = views()
        worst = max(worst, abs(float(step(tuple(pair))["loss"]) - their_step(model, optimizer, pair)))
    measured("losses of three further steps, absolute", worst, 2e-6)
    parts = {"projector": ours.projector, "predictor": ours.predictor}
    found = to_torch(ours.backbone, "facebookresearch", parts)
    bias = model.module.encoder.fc[6].bias
    errors = {}
    for name, tensor in model.state_dict().items():
        expected = tensor.numpy() - (bias.numpy() if name.endswith("fc.7.running_mean") else 0)
        if not name.endswith(("num_batches_tracked", "fc.6.bias")):
            errors[name] = np.abs(found[name] - expected).max() / np.abs(expected).max()
    measured("all weights after them", max(errors.values()), 2e-5, max(errors, key=errors.get))


@pytest.mark.slow
def test_a_run_that_begins_at_an_epoch_is_resumed(tmp_path, capsys):
    """Rates, order and steps are those of the whole run, also where it is ended and rerun."""
    flags = """--backbone=resnet10 --stem=small --width=0.125 --d=16 --data=digits --image_size=8
        --batch_size=128 --log_every=1 --monitor=none --strategy=one_device"""
    keras.utils.set_random_seed(0)
    (tmp_path / "w").mkdir()
    backbone_file.export_network(nets.resnet10(stem="small", width=0.125, channels=1), tmp_path / "w", {})
    argv = [*flags.split(), f"--weights={tmp_path / 'w'}", "--epochs=0.5"]
    assert pretrain.main([*argv, "--start_epoch=0.5", f"--workdir={tmp_path / 'x'}"]) == 2
    assert "nothing is left of --epochs=0.5" in capsys.readouterr().err
    argv[-1] = "--epochs=0.6"
    assert pretrain.main([*argv, "--start_epoch=0.3", f"--workdir={tmp_path / 'run'}"]) == 0
    err = capsys.readouterr().err
    assert "heads at random, momentum 0, epoch 0.3" in err and "learns little" not in err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [r for r in map(json.loads, lines) if "loss" in r]
    assert [r["step"] for r in records] == [4, 5, 6]  # 0.3 epochs are 3.4 batches
    lr = [r["lr"] for r in records]
    expected = [0.05 * 128 / 256 * 0.5 * (1 + np.cos(np.pi * s / 6)) for s in (3, 4, 5)]
    np.testing.assert_allclose(lr, expected, rtol=1e-5)
    assert backbone_file.read_card(tmp_path / "run")["step"] == 6
    assert pretrain.main([*argv, "--start_epoch=0.3", f"--workdir={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() == lines
