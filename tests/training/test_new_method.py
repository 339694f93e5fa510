"""A method of one's own trains by the command: as a row of METHODS, with flags of its own, or by its name."""

import dataclasses
import importlib.util
import json

import pytest
import tensorflow as tf

from simsiam_tf import nets, pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import METHODS, Method, loss_kind, method_of, option
from simsiam_tf.config.methods import MethodOptions
from simsiam_tf.evaluate.diagnosis import diagnose
from simsiam_tf.methods import SiameseModel
from simsiam_tf.model_export.card_text import method_summary
from simsiam_tf.training import build_run


class SquaredDistance(SiameseModel):
    """factor · ‖z1 − z2‖², as methods/NAME.py would hold it."""

    def __init__(self, backbone, d, projector_hidden, projector_layers, factor=1.0, **kwargs):
        super().__init__(backbone, **kwargs)
        self.projector = nets.projector(backbone.output_shape[-1], d, projector_hidden, projector_layers)
        self.factor, self.d, self.built = factor, d, True

    def objective(self, batch):
        z1, z2 = map(self.f, self.views(batch))
        return {"loss": self.factor * tf.reduce_mean(tf.square(z1 - z2)), "z": z1}


@dataclasses.dataclass(frozen=True)
class SquaredDistanceOptions(MethodOptions):
    factor: float | None = option(None, "weight of the squared distance", "Compared methods", limits=(0, 10))


ROW = Method(
    "Squared distance", "nowhere", f"{__name__}:SquaredDistance", SquaredDistanceOptions,
    {"predictor": "none", "factor": 0.5}, loss="distance",
)  # fmt: skip
FLAGS = [
    "--data=digits:train[:64]", "--monitor=none", "--batch_size=32", "--backbone=resnet10", "--width=0.125",
    "--d=8", "--epochs=1", "--log_every=1", "--precision=float32", "--strategy=one_device",
    "--projector_layers=1",
]  # fmt: skip


@pytest.fixture
def with_row(monkeypatch):
    """The command as it is when METHODS has the row, from which flags are made on import."""
    monkeypatch.setitem(METHODS, "squared_distance", ROW)
    spec = importlib.util.find_spec("simsiam_tf.config.pretrain")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(pretrain, "PretrainConfig", module.PretrainConfig)


@pytest.mark.slow
def test_a_method_is_a_model_and_a_row(with_row, tmp_path, capsys):
    assert pretrain.main([*FLAGS, "--method=squared_distance", "--factor=2", f"--workdir={tmp_path}"]) == 0
    assert capsys.readouterr().out.strip().startswith("Squared distance on digits")
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 2 and records[0]["loss"] > 0
    assert "--factor=2.0\n" in (tmp_path / "config.flags").read_text()


def test_its_options_reach_the_model(with_row):
    for argv, factor in ((["--factor=2"], 2.0), ([], 0.5)):  # without a flag, the row's default
        config = cli.parse(pretrain.PretrainConfig, [*FLAGS, "--method=squared_distance", *argv])
        model = build_run.build_model(config, channels=1, size=8)
        assert type(model) is SquaredDistance and (model.factor, model.d) == (factor, 8)


def test_its_options_are_flags_of_this_method_alone(with_row, capsys):
    assert pretrain.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "swav|vicreg|barlow|distill|squared_distance" in "".join(text.split())
    assert "weight of the squared distance" in text
    mine = "--method=squared_distance"
    for argv, line in (
        (["--factor=2"], "--factor=2.0 has no effect with a --method other than squared_distance"),
        ([mine, "--factor=11"], "--factor=11.0: must be from 0 to 10"),
        ([mine, "--queue=9"], "--queue=9 has no effect with a --method other than moco"),
    ):
        assert pretrain.main([*FLAGS, *argv]) == 2
        assert line in capsys.readouterr().err


class WithoutWidth(SiameseModel):
    """A class that does not take `d`."""

    def __init__(self, backbone):
        super().__init__(backbone)


class SelfMade(WithoutWidth):
    """Made by a `from_options` of its own."""

    @classmethod
    def from_options(cls, backbone, options, run):
        model = cls(backbone)
        model.given, model.built = (*options, run.seed), True
        return model


def test_a_class_is_named_by_its_module():
    for name, d in (("SquaredDistance", 8), ("SelfMade", None)):
        config = cli.parse(pretrain.PretrainConfig, [*FLAGS, f"--method=py:{__name__}:{name}", "--seed=3"])
        model = build_run.build_model(config, channels=1, size=8)
        assert type(model).__name__ == name and getattr(model, "d", None) == d
    assert model.given == ("d", "projector_hidden", "projector_layers", 3)


def test_a_class_that_is_no_method_is_refused_before_images_are_read(tmp_path, capsys):
    data = f"--data=folder:{tmp_path}"  # holds no image
    for name, line in (
        ("nothing", "--method=py:nothing: no such value. Pass --method=py:MODULE:CLASS."),
        ("no_such_module:X", "cannot be imported (No module named 'no_such_module')"),
        (f"{__name__}:Nothing", "Pass --method=py:MODULE:CLASS of a subclass of simsiam_tf.SiameseModel"),
        (f"{__name__}:FLAGS", "is not a class. Pass a subclass of simsiam_tf.SiameseModel."),
        (f"{__name__}:WithoutWidth", "cannot be made from (backbone, d, projector_hidden, projector_layers)"),
    ):
        assert pretrain.main([data, f"--method=py:{name}"]) == 2
        assert line in capsys.readouterr().err, name
    assert pretrain.main([data, "--method=py:a:B", "--queue=9"]) == 2
    assert "--queue=9 has no effect with a --method other than moco" in capsys.readouterr().err


def test_only_a_collapse_or_nan_is_diagnosed_for_a_loss_of_unknown_size():
    kind = loss_kind({"method": "py:module:Class"})
    grows = [
        {"step": 100 * i, "loss": 1e6 * i, "loss_spread": 1e5, "std": 0.9, "rank": 20.0} for i in range(1, 10)
    ]
    assert diagnose(grows, 900, kind).healthy and not diagnose(grows, 900, "contrast").healthy
    collapsed = [{**record, "std": 0.01} for record in grows]
    assert diagnose(collapsed, 900, kind).name == "collapse"
    assert "`base_lr`" in diagnose(collapsed, 900, kind).advice
    assert diagnose([{**grows[0], "loss": float("nan")}], 900, kind).name == "divergence"


def test_a_model_card_names_the_class_and_nothing_else():
    assert method_of({"method": "py:a.b:MyLoss"}).title == "MyLoss"
    for hostile in ("py:a:B](http://x)", "py:a:B\n# title", "py:a:<b>"):
        title, about = method_summary({"configuration": {"method": hostile}})
        assert title == "SimSiam" and hostile not in about
