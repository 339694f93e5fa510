"""The picture of diagnoses: a finished run is not repeated, and all curves lie within the axes."""

import json

import draw_diagnoses
import matplotlib.figure
import pytest
from helpers.report_runs import write_records


def test_curves_of_finished_runs_are_drawn_within_the_axes(tmp_path, monkeypatch):
    ranks = [9.0, 12.5]
    for name, rank in zip(draw_diagnoses.PICTURES["diagnoses-digits.png"][1], ranks, strict=True):
        folder = write_records(tmp_path / "runs" / name.replace(" ", "_"))
        same = {"loss_spread": 0.0, "std": 0.9, "rank": rank}
        rows = [{"step": 2 * i, "loss": -0.1 * i, **same} for i in (1, 2)]
        if rank == ranks[1]:
            rows.append({**rows[0], "step": 6, "loss": float("nan"), "std": float("nan"), "rank": 1.0})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(draw_diagnoses.subprocess, "run", lambda *args, **options: pytest.fail("trained"))
    drawn, save = [], matplotlib.figure.Figure.savefig
    noted = lambda self, *args, **options: drawn.append(self) or save(self, *args, **options)  # noqa: E731
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", noted)
    flags = [f"--folder={tmp_path / 'runs'}", f"--out={tmp_path}", "--picture=diagnoses-digits.png"]
    assert draw_diagnoses.main(flags) == 0
    assert (tmp_path / "diagnoses-digits.png").read_bytes()[:4] == b"\x89PNG"
    axes = drawn[0].axes
    assert [axis.get_title().splitlines()[0] for axis in axes[:2]] == ["healthy", "divergence"]
    low, high = axes[-1].get_ylim()
    assert low == 0 and high >= max(ranks)
    assert [len(axis.lines) for axis in axes] == [1, 2] * 3, "a line where the loss is no number"
