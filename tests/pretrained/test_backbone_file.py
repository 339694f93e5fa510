"""A backbone's file and its card."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import small_backbones

import simsiam_tf as ss
from simsiam_tf import embed, export, nets
from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.pretrained import backbone_file, pretrained_backbone
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError

AUGMENTATION = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8, area=(0.4, 1.0))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_backbones.exported(tmp_path_factory.mktemp("run"), AUGMENTATION, channels=1)


def test_augmentation_and_digest_come_from_the_card(workdir):
    known = open_pretrained(str(workdir))
    assert (
        known.augmentation == AUGMENTATION
        and known.card["step"] == 1
        and (known.channels, known.features) == (1, 64)
    )
    assert known.sha256 == json.loads((workdir / "export" / "backbone.json").read_text())["sha256"]
    assert known.views.augmentation == AUGMENTATION and known.views.count == 1
    assert open_pretrained(str(workdir), image_size=16).augmentation.size == 16


def test_a_file_without_a_card_needs_an_augmentation(workdir, tmp_path):
    alone = tmp_path / "alone.keras"
    alone.write_bytes((workdir / "export" / "backbone.keras").read_bytes())
    with pytest.raises(UserError, match="Pass augmentation=imagenet, cifar, grayscale or"):
        open_pretrained(str(alone))
    assert open_pretrained(str(alone), "cifar").augmentation == AUGMENTATIONS["cifar"]


@pytest.mark.slow
def test_of_a_saved_training_the_backbone_is_asked_for_and_taken(tmp_path):
    """`model.save` after `fit` writes heads and optimizer, too; `model.backbone.save` writes the network."""
    model = ss.SimSiam(nets.resnet10(stem="small", width=0.125, channels=1), d=16)
    model.compile(ss.optimizers.SGD(0.1))
    model.fit((np.zeros((4, 8, 8, 1), np.float32),) * 2, verbose=0)
    model.save(tmp_path / "whole.keras")
    with pytest.raises(UserError, match=r"whole model \(SimSiam\).* model.backbone.save\('backbone.keras'\)"):
        open_pretrained(str(tmp_path / "whole.keras"), "grayscale")
    keras.saving.load_model(tmp_path / "whole.keras").backbone.save(tmp_path / "backbone.keras")
    opened = open_pretrained(str(tmp_path / "backbone.keras"), "grayscale", 8)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    expected = model.backbone(images, training=False)
    np.testing.assert_allclose(opened.backbone(images, training=False), expected, rtol=1e-5, atol=1e-6)


def test_a_network_without_features_is_no_backbone(tmp_path):
    images = keras.Input((8, 8, 1))
    keras.Model(images, keras.layers.ReLU()(images)).save(tmp_path / "same.keras")
    with pytest.raises(UserError, match="is not a backbone"):
        open_pretrained(str(tmp_path / "same.keras"), "grayscale")


def test_other_channels_are_refused(workdir):
    colour = dataclasses.replace(open_source("digits"), name="colours", channels=3)
    with pytest.raises(UserError, match="colours: has 3 channels, the backbone .* takes 1"):
        open_pretrained(str(workdir)).check_channels(colour)


@pytest.mark.slow
def test_a_backbone_computes_in_the_present_policy(tmp_path):
    """Trained in bfloat16, it is used in float32 where that is what is asked for, and the other way."""
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    backbone = nets.resnet10(stem="small", width=0.125, channels=1)
    backbone_file.export_network(
        backbone, tmp_path, {"views": dataclasses.asdict(AUGMENTATIONS["grayscale"])}
    )
    rounded = open_pretrained(tmp_path).backbone
    keras.mixed_precision.set_dtype_policy("float32")
    opened = open_pretrained(tmp_path).backbone
    assert {layer.compute_dtype for layer in rounded.layers} == {"bfloat16"}
    assert {layer.compute_dtype for layer in opened.layers} == {"float32"}
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(backbone.weights, opened.weights, strict=True))
    exact = nets.resnet10(stem="small", width=0.125, channels=1)
    exact.set_weights(backbone.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 1)).astype(np.float32)
    np.testing.assert_array_equal(opened(x).numpy(), exact(x).numpy())
    assert opened(x).dtype == "float32"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_comes_back_from_a_card(name):
    views = json.loads(json.dumps(dataclasses.asdict(AUGMENTATIONS[name])))
    assert pretrained_backbone._augmentation_of_card(views, Path("x")) == AUGMENTATIONS[name]
    del views["solarize_p"]
    with pytest.raises(UserError, match="are not an augmentation .'solarize_p'"):
        pretrained_backbone._augmentation_of_card(views, Path("x"))


def test_a_card_that_was_changed_is_noticed(workdir, tmp_path):
    """One digit of the mean would make other features without a word."""
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    path = folder / "export" / "backbone.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole)))  # another layout of the same content
    assert open_pretrained(str(folder)).augmentation == AUGMENTATION
    changed = whole.replace("0.286", "0.285")
    assert changed != whole
    path.write_text(changed)
    with pytest.raises(UserError, match="backbone.json is damaged .changed since it was written; if"):
        open_pretrained(str(folder))
    assert backbone_file.read_card(folder) == {}
    # A card without a digest of itself, as after a change by hand, is read as it is.
    path.write_text(
        "\n".join(line for line in changed.splitlines() if "card sha256" not in line).replace("},\n}", "}\n}")
    )
    old = json.loads(path.read_text())
    assert (
        open_pretrained(str(folder)).augmentation.mean == (0.285,) and backbone_file.read_card(folder) == old
    )


@pytest.mark.parametrize(
    "views",
    [
        {"mean": "<b>"},
        {"mean": [True]},
        {"std": [float("nan")]},
        {"size": 8.0},
        {"size": "\x1b[31m"},
        {"mean": []},
        {"size": [32]},
        {"size": 10**400},
        {"flip_p": [0.5]},
    ],
    ids=lambda views: str(views)[:20],
)
def test_views_of_a_card_must_be_numbers(views):
    views = json.loads(json.dumps({**dataclasses.asdict(AUGMENTATION), **views}))
    with pytest.raises(UserError, match="are not an augmentation") as caught:
        pretrained_backbone._augmentation_of_card(views, Path("x"))
    assert str(caught.value).isprintable()


def test_a_run_whose_card_has_no_augmentation_is_refused(workdir, tmp_path):
    views = {**dataclasses.asdict(AUGMENTATION), "mean": "<b>"}
    backbone_file.export_network(open_pretrained(str(workdir)).backbone, tmp_path, {"views": views})
    with pytest.raises(UserError, match="are not an augmentation"):
        open_pretrained(str(tmp_path))


SAVED = """
import sys
from pathlib import Path
import keras
keras.Sequential([keras.layers.Dense(3)]) if len(sys.argv) > 2 else None
from simsiam_tf import nets
from simsiam_tf.pretrained import backbone_file
keras.utils.set_random_seed(0)
net = nets.resnet10(stem="small", width=0.125)
backbone_file.export_networks({"backbone": net, "projector": nets.projector(64, 8)}, Path(sys.argv[1]), {})
"""


@pytest.mark.slow
def test_equal_networks_are_equal_bytes(tmp_path):
    """In two processes, where Keras' own files differ by a date and by addresses of memory."""
    for name, *more in (("a",), ("b", "more")):
        (tmp_path / name).mkdir()
        path = os.pathsep.join(
            [str(Path(backbone_file.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        )
        subprocess.run(
            [sys.executable, "-c", SAVED, str(tmp_path / name), *more], check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(len(more))},
        )  # fmt: skip
    for part in ("backbone.keras", "backbone.json", "projector.keras"):
        assert (tmp_path / "a" / "export" / part).read_bytes() == (
            tmp_path / "b" / "export" / part
        ).read_bytes()
    assert backbone_file.load_backbone(str(tmp_path / "a")).count_params() > 0


@pytest.mark.slow
def test_errors_for_other_formats_say_what_to_do(workdir, tmp_path, capsys):
    for name in ("x.safetensors", "x.pth", "x.pth.tar", "x.ckpt"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError, match="convert it first: python -m simsiam_tf.convert --weights=.*x"):
            open_pretrained(str(tmp_path / name))
    (tmp_path / "x.npz").write_bytes(b"x")
    with pytest.raises(UserError, match="rebuild its network in Keras"):
        open_pretrained(str(tmp_path / "x.npz"))
    out = tmp_path / "model.keras"
    assert export.main([f"--weights={workdir}", "--format=keras", f"--out={out}"]) == 0
    capsys.readouterr()
    argv = [f"--weights={out}", "--data=digits", f"--out={tmp_path / 'x.npz'}", "--overwrite"]
    assert embed.main(argv) == 2
    err = capsys.readouterr().err
    assert "an export with its preprocessing inside" in err and f"--weights={workdir}." in err
    (tmp_path / "model.keras.json").unlink()
    with pytest.raises(UserError, match="the run that it was made from: weights=runs/…"):
        open_pretrained(str(out))
