"""Exports give the features of their source, in every format, as their cards say."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers import small_backbones
from markdown_it import MarkdownIt

from simsiam_tf import export as command
from simsiam_tf import open_pretrained
from simsiam_tf.data import AUGMENTATIONS, Views, preprocess
from simsiam_tf.model_export import formats, hub_folder, model_card
from simsiam_tf.runtime.errors import UserError

COLOUR = dataclasses.replace(AUGMENTATIONS["imagenet"], size=96)
FILES = {"keras": "m.keras", "saved_model": "m", "onnx": "m.onnx", "tflite": "m.tflite"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_backbones.exported(tmp_path_factory.mktemp("run"), COLOUR, channels=3)


@pytest.fixture(scope="module")
def pretrained(workdir):
    return open_pretrained(workdir)


@pytest.mark.parametrize(
    ("augmentation", "shape"),
    [
        (COLOUR, (96, 96, 3)), (COLOUR, (300, 201, 3)), (COLOUR, (50, 77, 3)), (COLOUR, (109, 96, 3)),
        (AUGMENTATIONS["grayscale"], (28, 28, 1)), (AUGMENTATIONS["grayscale"], (61, 40, 1)),
        (AUGMENTATIONS["cifar"], (20, 64, 3)),
    ],
)  # fmt: skip
def test_preprocessing_equals_that_of_other_commands(augmentation, shape):
    views = Views(augmentation, 1)
    images = formats.random_images(2, *shape, seed=0)
    found = preprocess(tf.constant(images), augmentation)
    expected = tf.stack([views.normalise(views.evaluation_view(tf.constant(i))) for i in images])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "format", [f if f == "keras" else pytest.param(f, marks=pytest.mark.slow) for f in FILES]
)
def test_the_code_of_the_card_gives_the_features_of_the_source(pretrained, tmp_path, monkeypatch, format):
    if any(importlib.util.find_spec(name) is None for name in formats.FORMATS[format].modules):
        pytest.skip("needs pip install 'simsiam-tf[onnx]'")
    made = formats.export_model(pretrained, tmp_path / FILES[format])
    assert made.format == format and 0 <= made.difference < 2e-3 * made.largest
    page = model_card.write_model_card(pretrained, made)
    monkeypatch.chdir(tmp_path)
    for shape in ((130, 97), (64, 200)):
        names = {"images": formats.random_images(2, *shape, 3, seed=7)}
        exec(page.read_text().split("```python\n")[1].split("```")[0], names)  # noqa: S102
        views = pretrained.views
        ready = tf.stack([views.normalise(views.evaluation_view(tf.constant(i))) for i in names["images"]])
        expected = pretrained.backbone(ready, training=False).numpy()
        np.testing.assert_allclose(names["features"], expected, atol=2e-3 * made.largest)
    assert {p.name for p in tmp_path.iterdir()} == {FILES[format], page.name, page.name[:-2] + "json"}


@pytest.mark.slow
@pytest.mark.parametrize("format", FILES)
def test_networks_of_small_images_are_exported(tmp_path, format):
    """Images of up to 64 pixels are resized without a crop."""
    if any(importlib.util.find_spec(name) is None for name in formats.FORMATS[format].modules):
        pytest.skip("needs pip install 'simsiam-tf[onnx]'")
    small = dataclasses.replace(AUGMENTATIONS["grayscale"], size=28)
    pretrained = open_pretrained(small_backbones.exported(tmp_path / "run", small, channels=1))
    made = formats.export_model(pretrained, tmp_path / FILES[format])
    assert 0 <= made.difference < 2e-3 * made.largest


def test_an_export_that_cannot_be_read_back_is_not_written(pretrained, tmp_path, monkeypatch):
    row = dataclasses.replace(formats.FORMATS["keras"], usage="raise KeyError(images.shape, {path})")
    monkeypatch.setitem(formats.FORMATS, "keras", row)
    with pytest.raises(UserError, match=r"not written, because it cannot be read back .*Try another format"):
        formats.export_model(pretrained, tmp_path / "m.keras")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_an_export_with_other_features_is_not_written(pretrained, tmp_path, monkeypatch):
    path = tmp_path / "m.keras"
    path.write_text("before")
    row = formats.FORMATS["keras"]
    for wrong in ("features * 1.02", "features[:, :-1]", "features * float('nan')"):
        off = dataclasses.replace(row, usage=f"{row.usage}\nfeatures = {wrong}")
        monkeypatch.setitem(formats.FORMATS, "keras", off)
        with pytest.raises(UserError, match="features differ from the source's"):
            formats.export_model(pretrained, path, overwrite=True)
        assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_existing_files_are_kept(pretrained, tmp_path):
    (tmp_path / "m.keras").write_text("mine")
    with pytest.raises(UserError, match="exists. Choose another, or pass `overwrite`"):
        formats.export_model(pretrained, tmp_path / "m.keras")
    (tmp_path / "m").write_text("mine")
    with pytest.raises(UserError, match="is no folder, which format=saved_model makes"):
        formats.export_model(pretrained, tmp_path / "m", overwrite=True)
    assert {(tmp_path / name).read_text() for name in ("m", "m.keras")} == {"mine"}
    (folder := tmp_path / "assets").mkdir()
    formats.check_output(folder, "saved_model")  # an empty folder holds nothing to keep
    for name in ("assets", "photo.jpg"):
        (folder / name).write_text("mine")
        with pytest.raises(UserError, match="something else in it"):
            formats.export_model(pretrained, folder, "saved_model", overwrite=True)
        assert (folder / name).read_text() == "mine"
    with pytest.raises(UserError, match=r"must end in \.keras"):
        formats.export_model(pretrained, tmp_path / "m.pb")
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        formats.export_model(pretrained, tmp_path / "m.keras", "onnx")


def test_a_missing_library_is_named(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs tf2onnx and onnxruntime: pip install 'simsiam-tf\[onnx\]'"):
        formats.export_model(pretrained, tmp_path / "m.onnx")


def test_the_digest_of_a_folder_depends_on_every_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_text("1")
    first = formats.content_digest(tmp_path)
    (tmp_path / "a" / "one").write_text("2")
    second = formats.content_digest(tmp_path)
    (tmp_path / "a" / "one").rename(tmp_path / "a" / "two")
    assert len({first, second, formats.content_digest(tmp_path)}) == 3


def test_the_card_has_the_metadata_of_the_run(pretrained, tmp_path):
    card = {
        "data": "photos", "images": 7, "step": 9, "accuracy": {"backbone": {"knn20": 0.5}, "raw pixels": {}},
        "configuration": {"base_lr": 0.1, "weights": None}, "made with": {"keras": "3"},
    }  # fmt: skip
    known = dataclasses.replace(pretrained, card=card)
    made = formats.ExportedModel(tmp_path / "m.onnx", "onnx", "ab12", 1e-6, 0.5)
    page = model_card.write_model_card(known, made)
    facts = json.loads(page.with_suffix(".json").read_text())
    assert facts["sha256"] == "ab12" and facts["source"]["sha256"] == pretrained.sha256
    assert facts["preprocessing"]["size"] == 96 and facts["images"] == 7
    text = page.read_text()
    for part in ("photos, 7 images", "| backbone | 50.0% |", "--base_lr=0.1", "`ab12`", "mean [0.485"):
        assert part in text
    assert "--weights" not in text


HOSTILE = "x\n# Heading\n\n```\n<script>alert(1)</script> [a](b) ![c](d) | `e` *f* _g_ \x1b[31m"


def filled(value):
    """A card with the same value wherever a card has text."""
    return {
        "data": value, "images": value, "step": value, "diagnosis": value,
        "accuracy": {value: {value: 0.5, "other": value}, "backbone": {"knn20": 0.25}},
        "configuration": {value: value, "method": value, "base_lr": 0.1}, "made with": {value: value},
    }  # fmt: skip


def test_values_of_a_foreign_card_are_text_in_ours(pretrained, tmp_path):
    """No heading, element, link, table or fence of its own, wherever a value stands."""
    parser = MarkdownIt("commonmark").enable("table")
    kinds = []
    for value in ("x", HOSTILE):
        known = dataclasses.replace(pretrained, card=filled(value))
        path = tmp_path / f"{value.replace('/', '')}.onnx"
        made = formats.ExportedModel(path, "onnx", "ab12", 1e-6, 0.5)
        pages = [
            model_card.card_page(model_card.card_metadata(known, made)),
            hub_folder.hub_readme(known, "resnet18", "ab12"),
        ]
        kinds.append([[token.type for token in parser.parse(page)] for page in pages])
        for page in pages:
            inside = {child.type for token in parser.parse(page) for child in token.children or []}
            assert inside <= {"text", "code_inline", "softbreak"} and "\x1b" not in page
            assert "<script>" not in parser.render(page) and "50.0%" in page
    assert kinds[0] == kinds[1]
    for odd in ({"configuration": 7, "accuracy": [1], "made with": "x"}, {"accuracy": {"a": 3}}):
        assert model_card.card_page(model_card.card_metadata(dataclasses.replace(pretrained, card=odd), made))


def test_the_command(workdir, tmp_path, capsys):
    argv = [f"--weights={workdir}", "--format=keras"]
    assert command.main(argv) == 0
    assert "largest difference of a feature" in capsys.readouterr().out
    assert (workdir / "export" / "model.keras").is_file() and (
        workdir / "export" / "model.keras.md"
    ).is_file()
    for more, said in (
        ([], "exists"), (["--format=jpeg"], "--format=jpeg: no such value"),
        (["--out=x.onnx"], "must end in .keras"),
        (["--weights=nowhere", "--overwrite"], "no such file"),
    ):  # fmt: skip
        assert command.main([*argv, *more]) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1


LOADED_ELSEWHERE = """
import sys
sys.modules["simsiam_tf"] = None  # every import of it fails
import keras, numpy as np
path, images, features = sys.argv[1:]
model = keras.saving.load_model(path)
np.save(features, model(np.load(images), training=False))
"""


@pytest.mark.parametrize("what", ["backbone", pytest.param("model", marks=pytest.mark.slow)])
def test_stock_keras_opens_the_files(pretrained, workdir, tmp_path, what):
    """In a process that cannot import this package: the backbone, and the model with its preprocessing."""
    images = formats.random_images(3, 130, 97, 3, seed=3)
    ready = preprocess(tf.constant(images), pretrained.augmentation).numpy()
    expected = pretrained.backbone(ready, training=False).numpy()
    path, given = workdir / "export" / "backbone.keras", ready
    if what == "model":
        path, given = tmp_path / "m.keras", images
        formats.export_model(pretrained, path)
    np.save(tmp_path / "images.npy", given)
    argv = [sys.executable, "-c", LOADED_ELSEWHERE, path, tmp_path / "images.npy", tmp_path / "features.npy"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    features = np.load(tmp_path / "features.npy")
    assert np.abs(features - expected).max() < 1e-5 * np.abs(expected).max()
