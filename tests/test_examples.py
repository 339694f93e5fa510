"""The examples run as their docstrings say, at tiny sizes; notebooks are stored without outputs."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from helpers.small_backbones import two_convolutions
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

import simsiam_tf as ss
from examples import own_method
from simsiam_tf import pretrain

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SMALL = (
    "--backbone=py:helpers.small_backbones:two_convolutions --d=16 --precision=float32 --strategy=one_device"
)
TINY = {  # notebook → what replaces its parameters
    "simsiam_in_60_lines": 'DATA, EPOCHS, BATCH, IMAGES = "digits:train[:256]", 2, 64, 120',
    "photo_folder": 'FOLDER, OUT, PHOTOS, LABELS = Path("photos"), Path("out"), 60, 6\n'
    f'TRAINING = "--method=simclr {SMALL} --image_size=16 --batch_size=32 --epochs=1 --monitor=none"\n'
    'CURATE = "--nopage"',
}


def cells(notebook, tag=None):
    """The code cells of a notebook; those with a tag."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and (tag is None or tag in cell.metadata.get("tags", []))
    ]


def read_tiny(path):
    """A notebook with the parameters of TINY."""
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = cells(notebook, "parameters")
    parameters.source += f"\n{TINY[path.stem]}"
    return notebook


def run_cells(name):
    """Runs a notebook in this process; returns its names."""
    names = {}
    for cell in cells(read_tiny(EXAMPLES / f"{name}.ipynb")):
        code = TransformerManager().transform_cell(cell.source)
        exec(compile(code, name, "exec"), names)  # noqa: S102
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs_and_open_in_colab(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in cells(notebook))
    assert f"colab.research.google.com/github/simsiam-tf/simsiam_tf/blob/main/examples/{path.name}" in (
        notebook.cells[0].source
    )
    assert cells(notebook)[0] == cells(notebook, "install")[0] and "%pip install" in cells(notebook)[0].source


def test_the_table_of_examples_names_every_file():
    named = re.findall(r"^\| \[[^]]+\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text(), re.M)
    files = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb", ".sh")]
    assert sorted(named) == sorted(files)


def test_simsiam_has_at_most_60_lines():
    notebook = nbformat.read(EXAMPLES / "simsiam_in_60_lines.ipynb", as_version=4)
    lines = [line for cell in cells(notebook) for line in cell.source.splitlines() if line.strip()]
    assert len(lines) <= 60


def test_simsiam_of_the_notebook_is_that_of_the_package(capsys, monkeypatch):
    monkeypatch.setattr(ss.nets, "resnet10", lambda **options: two_convolutions(None, options["channels"]))
    keras.utils.set_random_seed(1)
    names = run_cells("simsiam_in_60_lines")
    loss = names["history"].history["loss"]
    assert loss[-1] < loss[0] < 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[-4:]] == ["kNN", "raw", "untrained", "SimSiam"]
    assert len(re.findall(r"\d+\.\d%", out)) == 6

    model, size = names["model"], names["views"][0].shape[1]
    twin = ss.SimSiam(model.f.layers[0], d=256, projector_layers=2)
    twin.projector, twin.predictor = model.f.layers[1], model.h
    views = tf.random.stateless_uniform([2, 8, size, size, 1], (0, 0))
    batch = {"views": (views[0], views[1])}
    with tf.GradientTape() as tape:
        expected = twin.objective(batch)["loss"]
    before = [v.numpy() for v in model.trainable_variables]
    gradients = tape.gradient(expected, model.trainable_variables)
    model.compile(keras.optimizers.SGD(1.0))
    logs = model.train_step(batch)
    for mean in model.means:
        mean.reset_state()
    assert np.isfinite(float(logs["loss"]))
    for old, variable, gradient in zip(before, model.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(old - variable.numpy(), gradient, rtol=1e-3, atol=1e-5)


def test_a_photo_folder_from_the_first_look_to_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_cells("photo_folder")
    out = capsys.readouterr().out
    assert "curated: 64 pictures" in out  # 60, 3 copies and the turned one; not the broken one
    assert re.search(r"features: 6 labels name the class of \d+\.\d% of 58 other photos", out)
    predictions = (tmp_path / "out/predicted.csv").read_text().splitlines()
    assert predictions[0] == "name,label" and len(predictions) == 59
    rows = (tmp_path / "out/labelled.csv").read_text().splitlines()[1:]
    assert len(rows) == len(set(rows)) == 6
    for row in rows:
        path, label = row.split(",")
        assert Path(path).is_file() and Path(path).name.startswith(label)
    assert (
        set(names["labels"].values()) == {"temple", "flower"}
        and "temple_broken.jpg" not in names["photos"].names
    )


def numpy_wmse(z1, z2):
    """2 − 2 · mean cosine of whitened rows, by solving with NumPy's Cholesky factor."""
    units = []
    for z in (z1, z2):
        factor = np.linalg.cholesky(np.cov(z.T))
        w = np.linalg.solve(factor, (z - z.mean(axis=0)).T).T
        np.testing.assert_allclose(np.cov(w.T), np.eye(z.shape[1]), atol=1e-8)
        units.append(w / np.linalg.norm(w, axis=1, keepdims=True))
    return 2 - 2 * np.mean(np.sum(units[0] * units[1], axis=1))


def test_the_method_is_its_formula():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=[64, 5]) @ rng.normal(size=[5, 5]) + 3
    z2 = z1 + 0.5 * rng.normal(size=[64, 5])
    model = own_method.WMSE(two_convolutions(None, 1), d=5)
    model.f = lambda z: z  # the "views" are embeddings
    outputs = model.objective({"views": (tf.constant(z1), tf.constant(z2))})
    assert float(outputs["loss"]) == pytest.approx(numpy_wmse(z1, z2), rel=1e-9)
    np.testing.assert_array_equal(outputs["z"], z1)
    whitened = own_method.whiten(tf.constant(z1)).numpy()
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(5), atol=1e-9)


def test_the_method_trains_by_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    flags = ["--data=digits", *SMALL.split(), "--batch_size=128", "--base_lr=0.05", "--epochs=8"]
    more = ["--log_every=5", "--monitor=none", f"--workdir={tmp_path}"]
    assert pretrain.main([*flags, *more, "--method=py:examples.own_method:WMSE"]) == 0
    assert capsys.readouterr().out.lstrip().startswith("WMSE on digits: done")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    early, late = np.mean(losses[:6]), np.mean(losses[-6:])
    assert 0 < late < early - 0.02 < 4
    assert "--method=py:examples.own_method:WMSE" in (tmp_path / "config.flags").read_text()


def test_a_network_is_adapted_and_its_first_layers_stay(tmp_path, capsys, monkeypatch):
    keras.utils.set_random_seed(0)
    network = two_convolutions(None, 1)
    network.save(tmp_path / "published.keras")
    tiny = [
        f"--backbone=file:{tmp_path}/published.keras+weights", "--pixels=unit", "--data=digits", "--d=16",
        "--freeze_until=blocks_0", "--image_size=16", "--final_images=600", f"--workdir={tmp_path}/run",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["adapt_network.py", *tiny])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / "adapt_network.py"), run_name="__main__")
    assert ended.value.code == 0
    out = capsys.readouterr().out
    card = json.loads((tmp_path / "run/export/backbone.json").read_text())
    for name, title in (
        ("raw pixels", "raw pixels"),
        ("untrained backbone", "as published"),
        ("backbone", "adapted"),
    ):
        values = (card["accuracy"][name][column] for column in ("knn20", "whitened_knn20"))
        assert re.search(title + "".join(rf" +{value:.1%}".replace("%", " %") for value in values), out), out
    assert re.search(
        r"of whitened features by .* points\n\(100 images asked: up to \d+\.\d points may be chance\)\.$",
        out.strip(),
    ), out
    trained = ss.open_pretrained(tmp_path / "run", finished=False).backbone
    moved = [
        np.abs(a.get_weights()[0] - b.get_weights()[0]).max() > 0
        for a, b in zip(network.layers, trained.layers, strict=False)
        if a.get_weights()
    ]
    assert moved == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_in_jupyter(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    client = NotebookClient(read_tiny(path), timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    notebook = client.execute(env=environment)
    assert cells(notebook)[-1].outputs[-1].text


@pytest.mark.slow
def test_two_workers_end_alike(tmp_path):
    command = ["bash", EXAMPLES / "two_workers.sh", tmp_path, "--monitor=none", "--epochs=1"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ended with status (75|137)", done.stdout), done.stdout
    alone, killed = (line.split("  ")[-1].strip() for line in done.stdout.splitlines()[-2:])
    assert alone == killed and alone.startswith("step-00000022, ")
