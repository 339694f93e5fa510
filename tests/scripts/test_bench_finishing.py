"""scripts/bench/finishing.py: its sample, and a table whose rows equal the answers computed step by step."""

import dataclasses
import json

import finishing
import keras
import numpy as np
import pytest
import set_answers
from PIL import Image

from scripts.sets.set_file import Picture, write_set
from simsiam_tf import nets
from simsiam_tf.data import AUGMENTATIONS, Views, open_source
from simsiam_tf.evaluate.finishing import fit_whitening
from simsiam_tf.features import extract
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained


def test_a_sample_keeps_all_pictures_of_an_object(monkeypatch):
    rows = [Picture(f"{i}.png", object=str(i // 4)) for i in range(80)]
    monkeypatch.setattr(finishing, "MANY_OBJECTS", 10)
    drawn = finishing.sample(rows, 30, seed=0)
    counts = np.unique([row.object for row in drawn], return_counts=True)[1]
    assert counts.tolist() == [4] * 7 and drawn == finishing.sample(rows, 30, seed=0)
    assert drawn != finishing.sample(rows, 30, seed=1) and finishing.sample(rows, 80, seed=0) == rows
    monkeypatch.setattr(finishing, "MANY_OBJECTS", 20)
    assert len(finishing.sample(rows, 30, seed=0)) == 30


@pytest.mark.slow
def test_the_table_is_of_the_set_s_answers(tmp_path, capsys):
    rng, folder = np.random.default_rng(0), tmp_path / "tiny"
    folder.mkdir()
    colours, rows = rng.integers(0, 256, (12, 4, 4, 3)), []
    for i in range(48):
        pixels = colours[i // 4].repeat(6, 0).repeat(6, 1) + rng.normal(0, 60, (24, 24, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
        rows.append(Picture(f"{i:02}.png", "ab"[i // 24], "", str(i // 4), "mnop"[i % 4]))
    write_set(folder, rows)
    run = tmp_path / "run"
    run.mkdir()
    keras.utils.set_random_seed(0)
    networks = {
        "backbone": nets.resnet10("small", width=0.125),
        "projector": nets.projector(64, 16, 16, 2),
    }
    views = dataclasses.replace(AUGMENTATIONS["cifar"], size=24)
    backbone_file.export_networks(networks, run, {"views": dataclasses.asdict(views)})
    out = tmp_path / "out.json"
    assert finishing.main([str(run), str(folder), f"--json={out}"]) == 0
    table = json.loads(out.read_text())["rows"]
    readings = [row["reading"] for row in table]
    layers = {"features", "stage3", "projector", "stage3 and features", "quarters of features"}
    assert {r["layer"] for r in readings} >= layers
    assert {r["size"] for r in readings} == {1.0, 4 / 3, 1.5, 2.0}
    assert len({json.dumps(r) for r in readings}) == len(readings)

    pretrained, source = open_pretrained(run), open_source(f"folder:{folder}")
    x = extract(pretrained.backbone, source, Views(dataclasses.replace(views, size=32)))
    row = next(r for r in table if r["reading"]["size"] == 4 / 3)
    expected = set_answers.answers(set_answers.prepare(fit_whitening(x)(x)), rows)
    assert abs(row["pair"] - 100 * expected["pair"]) < 1.5  # near ties
    plain = extract(pretrained.backbone, source, pretrained.views)
    unit = (plain / np.linalg.norm(plain, axis=1, keepdims=True)).astype(np.float32)
    row = next(r for r in table if r["reading"]["whitening"] == "plain")
    assert abs(row["pair"] - 100 * set_answers.answers(unit, rows)["pair"]) < 1.5
    assert "the best of each:" in capsys.readouterr().out


def test_a_missing_run_is_one_line(tmp_path, capsys):
    write_set(tmp_path, [Picture("0.png")])
    assert finishing.main([str(tmp_path / "none"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("finishing.py: ")
