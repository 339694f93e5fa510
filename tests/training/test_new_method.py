"""A method that is added as a model and a row of METHODS trains by the command, with flags of its own."""

import dataclasses
import importlib.util
import json

import pytest
import tensorflow as tf

from simsiam_tf import nets, pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import METHODS, Method, option
from simsiam_tf.config.methods import MethodOptions
from simsiam_tf.methods import SiameseModel
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
