"""A run that begins with `weights` has the network that their card names, in options that are not given."""

import dataclasses
import json

import pytest

from simsiam_tf import nets
from simsiam_tf.config import PretrainConfig
from simsiam_tf.pretrained import backbone_file, initial_weights
from simsiam_tf.recipes import rules
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run, inspection, run_data

NETWORK = {"backbone": "resnet10", "stem": "small", "width": 0.125}
OF_RUN = {"configuration": {"backbone": "resnet10", "stem": "small", "width": 0.125}}
CONVERTED = {"architecture": {"name": "resnet10", "stem": "small", "width": 0.125, "channels": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    backbone_file.export_network(nets.resnet10("small", 0.125, 1), path, OF_RUN)
    return path


def config(folder, **options):
    return PretrainConfig(data="digits", batch_size=8, weights=str(folder), **options).validate()


def filled(folder, **options):
    lines = []
    found, _ = run_data.follow_recipe(config(folder, **options), tell=lines.append)
    return {name: getattr(found, name) for name in NETWORK}, lines


def test_the_card_fills_in_what_is_not_given(folder):
    found, (line,) = filled(folder)
    assert found == NETWORK
    assert line == f"network of {folder}: --backbone=resnet10 --stem=small --width=0.125"
    assert filled(folder, backbone="resnet10", stem="cifar")[0] == {**NETWORK, "stem": "cifar"}
    for other in ("resnet18", "keras:MobileNetV3Small"):  # the card says nothing about their stem
        default = {"backbone": other, "stem": "auto", "width": 1.0}
        assert filled(folder, backbone=other) == (default, [])
    auto, (line, recipe) = filled(folder, recipe="auto")
    assert auto == NETWORK and recipe.startswith("recipe")


@pytest.mark.parametrize("card", [{}, {"configuration": {"backbone": "file:lite0+weights"}}])
def test_a_network_of_another_library_is_named_by_its_file(folder, monkeypatch, card):
    card = card or {"views": {}}
    monkeypatch.setattr(backbone_file, "read_card", lambda weights: card)
    with pytest.raises(UserError, match=r"another architecture.*Pass backbone=file:.*\+weights instead of"):
        build_run.build_model(config(folder, backbone="resnet18"), 1, 8)


@pytest.mark.parametrize("card", [OF_RUN, CONVERTED])
def test_cards_of_runs_and_of_conversions_name_the_network(folder, tmp_path, monkeypatch, card):
    monkeypatch.setattr(backbone_file, "read_card", lambda weights: card)
    assert initial_weights.network_options("x") == NETWORK
    for damage in ({"stem": ["small"]}, {"stem": "big"}, {"name": "keras:X"}, {"width": "1"}):
        monkeypatch.setattr(
            backbone_file,
            "read_card",
            lambda weights, d=damage: {"architecture": {**CONVERTED["architecture"], **d}},
        )
        assert initial_weights.network_options("x") == {}


@pytest.mark.parametrize(("size", "stem"), [(64, "cifar"), (96, "imagenet")])
def test_the_automatic_stem_of_a_run_was_that_of_its_views(monkeypatch, size, stem):
    card = {"configuration": {**OF_RUN["configuration"], "stem": "auto"}, "views": {"size": size}}
    monkeypatch.setattr(backbone_file, "read_card", lambda weights: card)
    assert initial_weights.network_options("x") == {**NETWORK, "stem": stem}


def test_another_network_is_refused_with_the_options_to_pass(folder):
    with pytest.raises(UserError, match=r"Pass backbone=resnet10 stem=small width=0\.125\.$"):
        build_run.build_model(config(folder, backbone="resnet10", stem="small", width=0.25), 1, 8)


def test_a_rerun_keeps_the_network_of_its_folder(folder):
    before = {**dataclasses.asdict(config(folder)), **NETWORK, "width": 0.5}
    again = run_data.recall_network(config(folder, stem="cifar"), json.loads(json.dumps(before)))
    assert (again.backbone, again.stem, again.width) == ("resnet10", "cifar", 0.5)
    assert run_data.recall_network(config(folder), None) == config(folder)


def test_the_recipe_gives_the_imagenet_stem_larger_views():
    facts = rules.Facts(images=5000, side=300, channels=3, accelerator=False)
    for stem, size in (("imagenet", 64), ("small", 32)):
        chosen, _ = rules.choose(PretrainConfig(recipe="auto", data="digits", weights="x", stem=stem), facts)
        assert chosen.image_size == size


@pytest.mark.slow
def test_a_dry_run_names_the_weights_of_the_network(folder, capsys):
    file = f"file:{folder / 'export' / 'backbone.keras'}"
    for backbone, words in ((file, "random weights"), (f"{file}+weights", "its own weights")):
        given = PretrainConfig(
            data="digits", batch_size=8, epochs=1, backbone=backbone, pixels="unit", d=8, monitor="none"
        )
        inspection.dry_run(given.validate())
        out = capsys.readouterr().out
        assert f"{backbone}, {words}; " in out and "\nstem " not in out
