"""Imports go down only, and the command line's flags stay in its modules."""

import ast
import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import simsiam_tf
from simsiam_tf import config
from simsiam_tf.withheld import withheld

ROOT = Path(simsiam_tf.__file__).parent
LEVELS = [  # a module imports from its own level's leaves or from levels before it
    {
        "errors", "memory", "terminal", "losses", "schedules", "metrics", "diagnosis", "archive", "withheld",
        "devices", "printable",
    },
    {"threads", "progress", "files"},
    {"records"},
    {"config", "optim", "nets", "data", "checkpoints", "cluster"},
    {"methods", "weights", "workdir", "preview"},
    {"initial_weights", "pretrained", "recipes"},
    {"evaluate", "conversion"},
    {"assembly", "callbacks"},
    {"loop", "inspection", "exporting", "reporting"},
    {"train", "supervised"},
    {"summary", "help_text"},
    {"cli"},
    {"reproduction"},
    {
        "pretrain", "data_service", "knn_eval", "probe", "embed", "neighbours", "linear_eval", "finetune",
        "export", "report", "convert", "reproduce",
    },
]  # fmt: skip
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}


def modules():
    return [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


def part(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path):
    """Parts of the package, and outside packages, that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "simsiam_tf":
                yield from (f"simsiam_tf.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    for name in imported(path):
        if name.startswith("simsiam_tf."):
            other = name.split(".")[1]
            same = other == part(path)
            assert same or LEVEL[other] < LEVEL[part(path)], f"{part(path)} imports {other}"


def test_each_outside_library_has_one_door():
    doors = {"tensorflow_datasets": "catalogue.py", "keras_cv": "keras_cv_layer.py", "absl": "cli.py"}
    for path in modules():
        for name in imported(path):
            door = doors.get(name.split(".")[0])
            assert door in (None, path.name), f"{path.name} imports {name}"


def test_methods_import_no_other_method():
    folder = ROOT / "methods"
    for path in folder.glob("*.py"):
        if path.stem not in ("__init__", "base"):
            others = {n.removeprefix("simsiam_tf.methods.") for n in imported(path) if ".methods." in n}
            assert others <= {"base", "momentum", "per_image", "simsiam"}


def test_flags_are_parsed_without_loading_tensorflow():
    code = "import sys, simsiam_tf.pretrain as p; p.main(['--help']); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_command_loads_little_and_quickly():
    code = (
        "import gc, sys, simsiam_tf.pretrain as p\n"
        "status = p.main(['--data=folder:/nowhere', '--dry_run'])\n"  # found missing by what it loads first
        "print(status, *(m in sys.modules for m in ('keras_cv', 'sklearn', 'matplotlib')),\n"
        "      gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
        "import sklearn, matplotlib.pyplot"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "True", "False", "False", "True", "True"]


def test_a_module_that_is_withheld_seems_missing_for_that_long():
    import json as known

    sys.modules.pop("this", None)
    with withheld("this", "json"):
        with pytest.raises(ImportError):
            importlib.import_module("this")
        assert importlib.import_module("json") is known
    assert "this" not in sys.modules and importlib.util.find_spec("this")


def test_choices_are_the_rows_of_the_tables():
    from simsiam_tf import conversion, convert, losses, methods, nets, recipes
    from simsiam_tf.data import RECIPES

    choices = {f.name: set(f.metadata["choices"]) for f in dataclasses.fields(config.PretrainConfig)}
    assert choices["backbone"] == set(nets.BACKBONES)
    assert choices["stem"] == {"auto", *nets.STEMS}
    assert choices["predictor"] == {"auto", *nets.PREDICTOR}
    assert choices["bn"] == set(nets.BN_PLACEMENT)
    assert choices["similarity"] == set(losses.SIMILARITY)
    assert choices["symmetry"] == set(methods.SYMMETRY)
    assert choices["method"] == set(recipes.MODELS)
    assert set(convert.LAYOUTS) == set(conversion.LAYOUTS)
    assert choices["recipe"] == {"auto", *RECIPES}
