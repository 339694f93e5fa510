"""Folders import only from those below them, and modules load what they need alone, also on Windows."""

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
LEVELS = [  # a folder imports from itself and from those before it; commands in the root import from all
    "runtime", "config", "distributed", "optimizers", "nets", "data", "methods", "pretrained", "features",
    "evaluate", "loop", "recipes", "training", "dense_tasks", "html_report", "curation_page", "curation",
    "model_export", "command_line",
]  # fmt: skip
MODULES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def imports(path):
    """Names of modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "simsiam_tf":
            yield from (f"simsiam_tf.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def level(folder):
    return LEVELS.index(folder) if folder in LEVELS else len(LEVELS)


def test_folders_import_from_those_before_them():
    folders = {(path.relative_to(ROOT).parts[0], name) for path in MODULES for name in imports(path)}
    edges = {(folder, name.split(".")[1]) for folder, name in folders if name.startswith("simsiam_tf.")}
    assert len(edges) > 60
    assert [edge for edge in sorted(edges) if edge[0] != edge[1] and level(edge[1]) >= level(edge[0])] == []


def test_each_outside_library_has_one_door():
    doors = {"tensorflow_datasets": "tfds_sets.py", "keras_cv": "keras_cv_layer.py", "absl": "cli.py"}
    for path in MODULES:
        for name in imports(path):
            assert doors.get(name.split(".")[0]) in (None, path.name), f"{path.name} imports {name}"


def test_methods_import_no_other_method():
    shared = {"base", "momentum_encoder", "losses", "metrics", "run_size", "simsiam"}
    for path in (ROOT / "methods").glob("*.py"):
        if path.stem not in ("__init__", "base"):
            others = {n.removeprefix("simsiam_tf.methods.") for n in imports(path) if ".methods." in n}
            assert others <= shared, path.name


@pytest.mark.slow
def test_every_module_imports_without_what_windows_lacks():
    """Libraries have Windows' own ways; they are imported before."""
    code = """
import importlib, os, pkgutil, sys
import filelock, h5py, keras, keras_cv, PIL.Image, sklearn.linear_model, tensorflow, tensorflow_datasets, tqdm
lacking = {"O_NOFOLLOW", "O_NONBLOCK", "memfd_create", "posix_fallocate", "sched_getaffinity"}
for name in lacking & set(dir(os)): delattr(os, name)
sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))
import pytest

import simsiam_tf
optional = {"matplotlib", "jinja2", "safetensors", "torch", "pyarrow", "tf2onnx", "onnxruntime"}
for module in pkgutil.walk_packages(simsiam_tf.__path__, "simsiam_tf."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name not in optional: sys.exit(f"{module.name}: {error}")
print(len(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flags_are_parsed_without_loading_tensorflow():
    code = "import sys, simsiam_tf.pretrain as p; p.main(['--help']); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_command_loads_with_the_garbage_collector_paused():
    code = (
        "import gc, sys, simsiam_tf.pretrain as p\n"
        "status = p.main(['--data=list:/nowhere', '--dry_run'])\n"  # found missing by what it loads first
        "print(status, 'keras_cv' in sys.modules, gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "True", "True", "True"]


def test_choices_are_the_rows_of_the_tables():
    from simsiam_tf import methods, nets
    from simsiam_tf.config.backbones import BACKBONE_KINDS
    from simsiam_tf.data import AUGMENTATIONS
    from simsiam_tf.methods import losses

    choices = {f.name: set(f.metadata["choices"]) for f in dataclasses.fields(config.PretrainConfig)}
    (text,) = (f.metadata["help"] for f in dataclasses.fields(config.PretrainConfig) if f.name == "backbone")
    assert all(name in text for name in (*nets.BACKBONES, *BACKBONE_KINDS))
    assert set(nets.BACKBONES) == set(nets.RESNETS)
    assert choices["stem"] == {"auto", *nets.STEMS}
    assert choices["predictor"] == {"auto", *nets.PREDICTOR}
    assert choices["bn"] == set(nets.BN_PLACEMENT)
    assert choices["similarity"] == set(losses.SIMILARITY)
    for row in config.METHODS.values():
        for path in (row.model, *row.variants.values()):
            assert issubclass(pkgutil.resolve_name(path), methods.SiameseModel)
    assert choices["augmentation"] == {"auto", *AUGMENTATIONS}
