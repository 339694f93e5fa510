"""scripts/bench/judge_correlation.py: correlations by hand; judge.py prints a row for it."""

import dataclasses
import json
import math

import judge
import judge_correlation
import keras
import numpy as np
import pytest
from helpers import small_backbones

from simsiam_tf.data import AUGMENTATIONS


def run(name, answer, measure, **more):
    return {"run": "r", "set": name, "answers": {"pair": answer}, "measures": {"recall1": measure, **more}}


ROWS = [
    run("a", 0.1, 10, std=1), run("a", 0.2, 20, std=1), run("a", 0.3, 40, std=1), run("a", 0.4, 30, std=1),
    run("b", 0.9, 1), run("b", 0.8, 2), run("b", 0.7, 3), run("b", 0.6, None),
]  # fmt: skip


def found(rows, **wanted):
    (row,) = (r for r in rows if all(r[k] == v for k, v in wanted.items()))
    return row["runs"], row["rho"]


def test_correlations_by_hand():
    """Set a: d = 0, 0, 1, 1, so that ρ = 1 − 6 · 2 / (4 · 15) = 0.8. Set b: reversed."""
    rows = judge_correlation.correlations(ROWS)
    assert found(rows, set="a", measure="recall1") == (4, pytest.approx(0.8))
    assert found(rows, set="b", measure="recall1") == (3, pytest.approx(-1))
    assert math.isnan(found(rows, set="a", measure="std")[1]), "all values are equal"
    # Ranks in (0, 1): a (1, 3, 7, 5)/8 and (1, 3, 5, 7)/8, b (1, 3, 5)/6 and (5, 3, 1)/6.
    measures = np.array([1 / 8, 3 / 8, 7 / 8, 5 / 8, 1 / 6, 3 / 6, 5 / 6])
    answers = np.array([1 / 8, 3 / 8, 5 / 8, 7 / 8, 5 / 6, 3 / 6, 1 / 6])
    m, a = (np.argsort(np.argsort(x)) for x in (measures, answers))
    expected = 1 - 6 * ((m - a) ** 2).sum() / (7 * 48)
    assert found(rows, set=judge_correlation.POOLED, measure="recall1") == (7, pytest.approx(expected))


def test_the_table_has_a_column_a_set_with_its_runs(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    assert judge_correlation.main([str(file)]) == 0
    head, _, first, *_ = capsys.readouterr().out.splitlines()
    assert head == "| pair | a (4 runs) | b (3 runs) | all, within sets (7 runs) |"
    assert first.startswith("| recall1 | +0.80 | -1.00 |")
    file.write_text("{}\n")
    assert judge_correlation.main([str(file)]) == 2


@pytest.mark.slow
def test_a_work_folder_gives_a_row(tmp_path, capsys):
    augmentation = dataclasses.replace(AUGMENTATIONS["cifar"], size=16)
    small_backbones.exported(tmp_path / "run", augmentation, channels=3)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5, "std": 0.5, "rank": 2}\n{"st')
    (tmp_path / "images").mkdir()
    for i in range(20):
        picture = np.random.default_rng(i).random([16, 16, 3])
        keras.utils.save_img(tmp_path / "images" / f"{i:02d}.png", picture)
    arguments = [str(tmp_path / "run"), f"folder:{tmp_path / 'images'}"]
    assert judge.main([*arguments, "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["measures"].items() >= {"loss": 1.5, "std of z": 0.5, "rank of z": 2, "steps": 3}.items()
    assert {"recall1", "mrr", "rankme", "alpha_req", "lidar"} <= set(row["measures"])
    assert set(row["baselines"]) == {"raw pixels", "untrained backbone"}
    assert judge.main(arguments) == 0
    assert "this backbone" in capsys.readouterr().out
    assert judge.main([str(tmp_path / "nowhere"), arguments[1]]) == 2
