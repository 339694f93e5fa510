"""The README's notebook runs, and what it names exists."""

import functools
import importlib
import re
import shlex
import typing
from pathlib import Path

import numpy as np
import tensorflow as tf
from helpers import small_backbones

import simsiam_tf as ss
from scripts.paper import reproduce
from simsiam_tf import config, convert, embed, export, knn_eval, neighbours, probe, report
from simsiam_tf.command_line import cli
from simsiam_tf.data import AUGMENTATIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.S)


def test_photos_to_neighbours_in_a_few_lines(tmp_path, monkeypatch, capsys):
    code = python_blocks()[0]
    assert len(code.splitlines()) < 15
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        picture = np.random.default_rng(i).integers(0, 255, [8, 9, 3], np.uint8)
        (photos / f"{('one', 'two', 'three')[i]}.jpg").write_bytes(tf.io.encode_jpeg(picture).numpy())
    monkeypatch.chdir(tmp_path)
    small_backbones.exported(tmp_path / "runs" / "photos", AUGMENTATIONS["cifar"], channels=3)
    exec(code.replace("/my/photos", str(photos)), {})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("(3, 64)") and lines[1] == "1.000  one.jpg" and len(lines) == 4


def test_commands_of_the_package_parse():
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    commands = re.findall(r"python -m simsiam_tf\.(\w+) ([^\n#]*)", blocks)
    assert len({name for name, _ in commands}) > 4
    for name, rest in commands:
        module = importlib.import_module(f"simsiam_tf.{name}")
        (cls,) = (c for k, c in typing.get_type_hints(module.call).items() if k != "return")
        cli.parse(cls, shlex.split(rest))


def test_names_of_the_python_interface_exist():
    names = set(re.findall(r"`[^`]*?\bss\.([\w.]+)", README))
    assert len(names) > 6
    for name in names:
        functools.reduce(getattr, name.split("."), ss)


def test_the_notebook_runs_and_learns(capsys):
    code = python_blocks()[-1]
    names = {}
    exec(code, names)  # noqa: S102
    assert names["model"].history.history["loss"][-1] < names["model"].history.history["loss"][0] - 0.05
    assert {"knn20", "knn200"} <= set(names["model"].history.history)
    assert "knn20" in capsys.readouterr().out


def test_flags_files_and_names_exist():
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    spans = [
        span for span in re.findall(r"`[^`]+`", prose) if not re.search(r"scripts/|\.sh|tensorboard ", span)
    ]
    flags = set(re.findall(r"--(\w+)", "\n".join(spans)))
    assert len(flags) > 40
    classes = (
        config.PretrainConfig, knn_eval.KnnConfig, probe.ProbeConfig, embed.EmbedConfig,
        neighbours.NeighboursConfig, config.LinearConfig, config.FinetuneConfig, export.ExportConfig,
        report.ReportConfig, convert.ConvertConfig, reproduce.ReproduceConfig,
    )  # fmt: skip
    scripts = "".join(path.read_text() for path in ROOT.glob("scripts/**/*.py"))
    flags -= set(re.findall(r'"--(\w+)"', scripts))
    assert flags - {name for cls in classes for name in config.field_types(cls)} <= {
        "flagfile",
        "help",
        "role",
        "host",
        "port",
        "work_dir",
        "dispatcher",
    }
    for path in re.findall(r"`((?:scripts|tests|flags)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
    rows = [line for line in README.splitlines() if line.startswith("| ") and ".py`: `" in line]
    assert len(rows) > 8
    for row in rows:
        for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`[^`]+`(?:, )?)+)", row):
            source = (ROOT / "simsiam_tf" / path).read_text()
            for name in re.findall(r"`(\w+)", names.replace("SimSiam.", "")):
                assert re.search(rf"\b{name}\b", source), (path, name)
        for pattern in re.findall(r"`((?:paper|imagenet|cifar10|compare)/[\w*]+)`", row):
            assert list((ROOT / "flags").glob(f"{pattern}.cfg")), pattern
