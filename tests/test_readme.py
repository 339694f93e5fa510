"""README and the pages of docs/: their code runs, their commands parse, and every name in them exists."""

import csv
import functools
import importlib
import re
import shlex
import types
import typing
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import hub_server, places, small_backbones
from test_imports import LEVELS

import simsiam_tf as ss
from scripts.paper import reproduce
from simsiam_tf import (
    config,
    convert,
    curate,
    data_service,
    embed,
    export,
    knn_eval,
    neighbours,
    probe,
    report,
)
from simsiam_tf.command_line import cli
from simsiam_tf.data import AUGMENTATIONS

hub = hub_server.hub  # the fixture
ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
TEXT = "\n".join(path.read_text() for path in PAGES)
CONFIGS = (
    config.PretrainConfig, knn_eval.KnnConfig, probe.ProbeConfig, embed.EmbedConfig,
    neighbours.NeighboursConfig, config.LinearConfig, config.FinetuneConfig, export.ExportConfig,
    report.ReportConfig, convert.ConvertConfig, data_service.ServiceConfig, reproduce.ReproduceConfig,
    curate.CurateConfig, config.TransferConfig,
)  # fmt: skip


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.S)


def test_photos_to_neighbours_in_a_few_lines(tmp_path, monkeypatch, capsys):
    (code,) = python_blocks(README)
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


def test_few_labels_name_the_rest(tmp_path, monkeypatch):
    """Of two classes far apart, one label each: the table of docs/evaluate.md has the others' right ones."""
    (code,) = python_blocks(ROOT / "docs" / "evaluate.md")
    names = [f"{kind}/{i}, a.jpg" for i in range(4) for kind in "ab"]
    features = np.array([[1, 0], [0, 1]] * 4, np.float32) + np.arange(8)[:, None] / 100
    arrays = {"names": names, "features": features}
    monkeypatch.setattr(ss.features, "read_embeddings", lambda path: types.SimpleNamespace(**arrays))
    (tmp_path / "labels.csv").write_text('path,label\n"a/0, a.jpg",x\n"b/0, a.jpg",y\n')
    monkeypatch.chdir(tmp_path)
    exec(code.replace("/my/photos", str(tmp_path)), {})  # noqa: S102
    with open("predicted.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"]: row["label"] for row in rows} == {n: "xy"[n[0] == "b"] for n in names[2:]}
    assert all(0.5 < float(row["probability"]) < 1 for row in rows)


@pytest.mark.slow
def test_the_notebook_runs_and_learns(capsys):
    names, (_, code) = {}, python_blocks(ROOT / "docs" / "python.md")
    exec(code, names)  # noqa: S102
    assert names["model"].history.history["loss"][-1] < names["model"].history.history["loss"][0] - 0.05
    assert {"knn20", "knn200"} <= set(names["model"].history.history)
    assert "knn20" in capsys.readouterr().out


def test_a_backbone_of_the_hub_in_a_few_lines(hub, tmp_path, capsys):
    export = small_backbones.exported(tmp_path / "run", AUGMENTATIONS["cifar"], channels=3) / "export"
    files = {file.name: file.read_bytes() for file in export.iterdir()}
    hub.repositories["anna/birds"] = hub_server.Repository(files)
    (tmp_path / "photos").mkdir()
    places.write_folder(tmp_path / "photos")
    code, _ = python_blocks(ROOT / "docs" / "python.md")
    exec(code.replace("USER/NAME", "anna/birds").replace("/my/photos", str(tmp_path / "photos")), {})  # noqa: S102
    assert capsys.readouterr().out == f"({places.COUNT}, 64)\n(1, 64)\n"
    assert (tmp_path / "runs" / "anna-birds" / "features").is_dir()


def test_commands_of_the_package_parse():
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S))
    commands = set(re.findall(r"python -m simsiam_tf\.(\w+) ([^\n#]*)", blocks))
    inline = re.findall(r"`python -m simsiam_tf\.(\w+) ([^`]*)`", TEXT)
    commands |= {(name, rest.replace("\n", " ")) for name, rest in inline if "…" not in rest}
    assert len({name for name, _ in commands}) > 9
    for name, rest in commands:
        module = importlib.import_module(f"simsiam_tf.{name}")
        (cls,) = (c for k, c in typing.get_type_hints(module.call).items() if k != "return")
        cli.parse(cls, shlex.split(rest))


def test_names_of_the_python_interface_exist():
    names = set(re.findall(r"`[^`]*?\bss\.([\w.]+)", TEXT))
    assert len(names) > 6
    for name in names:
        functools.reduce(getattr, name.split("."), ss)


def test_flags_exist():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.S)
    other_programs = r"scripts/|\.sh|^`(?:tensorboard|docker|ruff|python -m pip) "
    spans = [span for span in re.findall(r"`[^`]+`", prose) if not re.search(other_programs, span)]
    flags = set(re.findall(r"--(\w+)", "\n".join(spans)))
    assert len(flags) > 40
    scripts = "".join(path.read_text() for path in ROOT.glob("scripts/**/*.py"))
    known = {name for cls in CONFIGS for name in config.field_types(cls)} | {"flagfile", "help"}
    assert flags - set(re.findall(r'"--(\w+)"', scripts)) <= known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_files_exist(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (path.parent / link).exists(), link
    for name in re.findall(r"`((?:scripts|tests|flags|docs)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?:python|bash) (scripts/[\w./]+)", text):
        assert (ROOT / name).is_file(), name
    folders = "|".join(p.name for p in (ROOT / "simsiam_tf").iterdir() if p.is_dir())
    for name in re.findall(rf"`((?:{folders})/[\w./]+)`", text):
        assert (ROOT / "simsiam_tf" / name).exists(), name


def test_rows_of_the_paper_name_code_and_flagfiles():
    rows = [
        x for x in (ROOT / "docs/paper.md").read_text().splitlines() if x.startswith("| ") and ".py`" in x
    ]
    assert len(rows) > 20
    for row in rows:
        for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`[^`]+`(?:, )?)+)", row):
            source = (ROOT / "simsiam_tf" / path).read_text()
            for name in re.findall(r"`(\w+)", names.replace("SimSiam.", "")):
                assert re.search(rf"\b{name}\b", source), (path, name)
        for pattern in re.findall(r"`((?:paper|imagenet|cifar10|compare)/[\w*]+)`", row):
            assert list((ROOT / "flags").glob(f"{pattern}.cfg")), pattern


def test_the_page_of_architecture_has_the_folders_in_their_order():
    text = (ROOT / "docs/architecture.md").read_text()
    assert re.findall(r"^\| `(\w+)/` \|", text, re.M) == LEVELS


def test_readme_is_short():
    text = README.read_text()
    assert len(text.split()) <= 1200 and text.index("quickstart.sh") < text.index("test.sh")
    pictures = [*(ROOT / "docs" / "img").iterdir()]
    assert sum(path.stat().st_size for path in pictures) < 1.5e6
    for path in pictures:
        assert path.name in TEXT, path.name
