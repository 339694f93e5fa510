"""Imports go down only, and the command line's flags stay in its modules."""

import ast
import dataclasses
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import simsiam_tf
from simsiam_tf import config

ROOT = Path(simsiam_tf.__file__).parent
LEVELS = [  # a folder imports from itself and from those above it in this list
    "runtime", "config", "distributed", "optimizers", "nets", "data", "methods", "pretrained", "features",
    "evaluate", "loop", "training", "html_report", "model_export", "command_line",
]  # fmt: skip
COMMANDS = [
    "pretrain", "data_service", "knn_eval", "probe", "embed", "neighbours", "linear_eval", "finetune",
    "export", "report", "convert",
]  # fmt: skip
LEVEL = {name: i for i, name in enumerate(LEVELS)} | dict.fromkeys(COMMANDS, len(LEVELS))


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
    doors = {"tensorflow_datasets": "tfds_sets.py", "keras_cv": "keras_cv_layer.py", "absl": "cli.py"}
    for path in modules():
        for name in imported(path):
            door = doors.get(name.split(".")[0])
            assert door in (None, path.name), f"{path.name} imports {name}"


def test_methods_import_no_other_method():
    folder = ROOT / "methods"
    for path in folder.glob("*.py"):
        if path.stem not in ("__init__", "base"):
            others = {n.removeprefix("simsiam_tf.methods.") for n in imported(path) if ".methods." in n}
            assert others <= {
                "base",
                "batches",
                "momentum_encoder",
                "image_memory",
                "losses",
                "metrics",
                "simsiam",
            }


def test_flags_are_parsed_without_loading_tensorflow():
    code = "import sys, simsiam_tf.pretrain as p; p.main(['--help']); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_command_loads_with_the_garbage_collector_paused():
    code = (
        "import gc, sys, simsiam_tf.pretrain as p\n"
        "status = p.main(['--data=folder:/nowhere', '--dry_run'])\n"  # found missing by what it loads first
        "print(status, 'keras_cv' in sys.modules, gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "True", "True", "True"]


def test_choices_are_the_rows_of_the_tables():
    from simsiam_tf import convert, methods, nets
    from simsiam_tf.data import AUGMENTATIONS
    from simsiam_tf.methods import losses
    from simsiam_tf.pretrained import torch_weights

    choices = {f.name: set(f.metadata["choices"]) for f in dataclasses.fields(config.PretrainConfig)}
    assert choices["backbone"] == set(nets.BACKBONES)
    assert choices["stem"] == {"auto", *nets.STEMS}
    assert choices["predictor"] == {"auto", *nets.PREDICTOR}
    assert choices["bn"] == set(nets.BN_PLACEMENT)
    assert choices["similarity"] == set(losses.SIMILARITY)
    for row in config.METHODS.values():
        for path in (row.model, *row.variants.values()):
            assert issubclass(pkgutil.resolve_name(path), methods.SiameseModel)
    assert set(convert.LAYOUTS) == set(torch_weights.LAYOUTS)
    assert choices["augmentation"] == {"auto", *AUGMENTATIONS}
