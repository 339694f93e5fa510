"""Answers to the paper's claims: means, scatter between seeds, titles, the page."""

import math
import re
import statistics

import pytest

from scripts.paper import SCALES, TABLES, claims, results, scales, verdict

ROWS = {row.name: row for table in TABLES.values() for row in table.rows}
CONSTANT, DECAYED = "paper/table1_c_constant_lr", "paper/fig2_with_stop_gradient"
TABLE1C = "Table 1 c: a constant lr of h is better than a decayed one"


def run_metrics(**more):
    return {
        "linear": 0.68, "knn": 0.6, "loss": -0.9, "std": 0.95, "rank": 30.0, "spread": 0.01, "steps": 400,
        "diagnosis": "healthy", "reason": "", "seconds": 60.0, "date": "2026-11-26", "machine": "one CPU",
        **more,
    }  # fmt: skip


def seeds(points=0.03, count=3, linear=0.68, **more):
    """Runs whose linear accuracies have that standard deviation, in points."""
    steps = [i - (count - 1) / 2 for i in range(count)]
    unit = statistics.stdev(steps) if count > 1 else 1.0
    return [run_metrics(linear=linear + points / 100 * step / unit, **more) for step in steps]


def _papers(points=0.03, count=3):
    """The paper's results as metrics of runs."""
    rows = {n: r.paper / 100 for n, r in ROWS.items() if isinstance(r.paper, float)}
    runs_of_rows = {name: seeds(points, count, paper) for name, paper in rows.items()}
    collapse = {"std": 0.0, "diagnosis": "collapse"}
    runs_of_rows["paper/fig2_without_stop_gradient"] = seeds(0, count, 0.001, **collapse)
    runs_of_rows["paper/table1_a_no_predictor"] = seeds(0, count, 0.001, **collapse)
    runs_of_rows["paper/table1_b_fixed_predictor"] = seeds(
        0, count, 0.015, loss=-0.01, diagnosis="non-convergence"
    )
    runs_of_rows["paper/table3_d_all_bn"] = seeds(0, count, 0.3, spread=0.2, diagnosis="oscillation")
    nothing = dict.fromkeys(("linear", "knn", "loss", "std", "rank", "spread"))
    runs_of_rows["compare/swav_without_stop_gradient"] = [
        run_metrics(**nothing, diagnosis="divergence")
    ] * count
    return runs_of_rows


def answers(runs_of_rows):
    return {v.claim.text: v.answer for v in verdict.answer_claims(runs_of_rows)}


def test_the_papers_own_results_show_its_claims():
    verdicts = verdict.answer_claims(_papers())
    assert len(verdicts) == len(claims.CLAIMS) == 23
    assert [(v.claim.text, v.share) for v in verdicts if v.answer != "firm"] == []
    page = results.markdown(_papers(), "imagenet")
    assert "The paper's claims here: 23 firm, 0 open, 0 not shown of 23 ([claim by" in page.split("## ")[0]


def test_scatter_between_seeds_leaves_small_differences_open():
    answer_of = answers(_papers(points=1.0))
    small = {
        "Table 1 c", "Table 2: batches", "Table 3 b", "Sec. 4.4", "App. B", "Sec. 5: alternation",
        "Sec. 6.2: neither", "Table 4",
    }  # fmt: skip
    assert all(
        answer_of[text] == "open" for text in answer_of if any(text.startswith(start) for start in small)
    )
    assert "not shown" not in answer_of.values()
    assert {answer_of[t] for t in answer_of if t.startswith(("Fig. 2", "Table 3 a", "Table 1 a"))} == {"firm"}


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_seeds_leave_a_claim_open_and_say_so(count):
    assert set(answers(_papers(count=count)).values()) == {"open"}
    one = _papers() | {CONSTANT: seeds(count=count, linear=0.6)}
    page = results.markdown(one, "fashion_mnist")
    assert (
        f"| {TABLE1C} | open, {count} seed{'s' * (count > 1)} | – | (c) lr of h not decayed: linear 60.0"
        in page
    )
    others = [claim for claim in claims.CLAIMS if CONSTANT not in claim.rows]
    answer_of = answers(one)
    assert all(answer_of[claim.text] == "firm" for claim in others)
    assert f"{len(others)} firm, {23 - len(others)} open, 0 not shown of 23" in page


@pytest.mark.parametrize("points", [0.2, 0.5])
@pytest.mark.parametrize("difference", [-0.8, -0.3, 0.0, 0.3, 0.8])
def test_the_share_is_that_of_the_standard_error_of_a_difference(points, difference):
    runs_of_rows = {f"row {i}": seeds(points, 4) for i in range(40)}  # which make the pooled scatter
    runs_of_rows |= {CONSTANT: seeds(0, 3, 0.68 + difference / 100), DECAYED: seeds(0, 6, 0.68)}
    share = next(v.share for v in verdict.answer_claims(runs_of_rows) if v.claim.text == TABLE1C)
    deviation = verdict.shared_scatter(runs_of_rows).deviation
    assert deviation == pytest.approx(points * math.sqrt(120 / 127))
    error = deviation * math.sqrt(1 / 3 + 1 / 6)
    assert share == pytest.approx(statistics.NormalDist().cdf(difference / error), abs=0.03)


@pytest.mark.parametrize(("linear", "answer"), [(0.70, "firm"), (0.683, "open"), (0.66, "not shown")])
def test_answers_on_the_page(linear, answer):
    runs_of_rows = {CONSTANT: seeds(0.5, linear=linear), DECAYED: seeds(0.5)}
    assert answers(runs_of_rows)[TABLE1C] == answer
    page, *others = (results.markdown(runs_of_rows, s) for s in ("fashion_mnist", "cifar10", "imagenet"))
    row = next(line for line in page.splitlines() if line.startswith(f"| {TABLE1C} | {answer} | "))
    assert row.endswith(
        f"(c) lr of h not decayed: linear {100 * linear:.1f} ± 0.3 %; baseline, lr decayed on a cosine: "
        "linear 68.0 ± 0.3 % |"
    )
    assert "share a standard deviation of 0.50 points" in page
    assert ("Likely reasons" in page) == (answer == "not shown")
    assert not any("Likely reasons" in other for other in others)
    assert "lack runs" in page


@pytest.mark.parametrize(("collapsed", "answer"), [(0, "not shown"), (1, "open"), (2, "open"), (3, "firm")])
def test_what_is_diagnosed_is_counted_over_seeds(collapsed, answer):
    bad, good = run_metrics(diagnosis="collapse", std=0.02), run_metrics()
    runs_of_rows = {"paper/fig2_without_stop_gradient": [bad] * collapsed + [good] * (3 - collapsed)}
    (verdict_line,) = (
        v for v in verdict.answer_claims(runs_of_rows) if "without stop-gradient" in v.claim.text
    )
    assert verdict_line.answer == answer and verdict_line.share == pytest.approx(collapsed / 3, abs=0.05)
    assert collapsed in (0, 3) or f"{collapsed}× collapse, {3 - collapsed}× healthy" in verdict_line.metrics


def test_a_row_that_collapses_has_a_scatter_of_its_own():
    wild = seeds(9.0, diagnosis="collapse", std=0.01)
    runs_of_rows = _papers() | {"paper/fig2_without_stop_gradient": wild}
    assert verdict.shared_scatter(runs_of_rows).deviation == pytest.approx(0.03)
    assert answers(runs_of_rows) == answers(_papers())
    none = seeds(9.0, linear=0.6, diagnosis="non-convergence")
    runs_of_rows = {"paper/table3_a_no_bn": none, "paper/table3_c_default_bn": seeds()}
    assert set(answers(runs_of_rows).values()) == {"open"}


def test_runs_that_several_rows_show_count_once():
    shared = seeds(1.0)
    runs_of_rows = {CONSTANT: shared, "paper/table3_c_default_bn": list(shared), DECAYED: seeds(0.0)}
    scatter = verdict.shared_scatter(runs_of_rows)
    assert scatter.freedom == 4 and scatter.deviation == pytest.approx(math.sqrt(0.5))


def test_a_divergence_is_no_support():
    nothing = {**dict.fromkeys(("linear", "knn", "loss", "std", "rank", "spread")), "diagnosis": "divergence"}
    paper, alone = _papers(), ("Sec. 6.2: without stop-gradient SwAV", "Table 3 d")
    for claim in claims.CLAIMS:
        for name in claim.rows:
            runs_of_rows = {row: paper[row] for row in claim.rows} | {name: [run_metrics(**nothing)] * 3}
            firm = answers(runs_of_rows)[claim.text] == "firm"
            assert firm <= claim.text.startswith(alone), (claim.text, name)
    runs_of_rows = {CONSTANT: [*seeds()[:2], run_metrics(**nothing)], DECAYED: seeds(linear=0.5)}
    assert answers(runs_of_rows)[TABLE1C] == "open"


def test_other_results_do_not_show_them():
    answer_of = answers({name: seeds() for name in ROWS})  # all rows alike
    tolerant = {text for text, answer in answer_of.items() if answer == "firm"}
    words = ("within", "near", "not", "with it", "works", "whole", "neither")
    assert all(any(word in text for word in words) for text in tolerant), tolerant
    worse = {name: seeds(linear=0.6, std=0.01, diagnosis="collapse") for name in ROWS}
    worse["paper/table3_c_default_bn"] = worse["paper/table2_batch_256"] = seeds()
    worse["paper/table1_c_constant_lr"] = seeds()
    worse["compare/simclr"] = worse["compare/swav"] = seeds(linear=0.5)
    answer_of = answers(worse)
    assert not {text for text in tolerant if answer_of[text] == "firm"}


def test_claims_without_results_are_not_judged():
    assert verdict.answer_claims({CONSTANT: seeds()}) == []


@pytest.mark.parametrize("scale", SCALES)
def test_titles_say_what_ran(scale):
    numbers = {
        "batch_size": r"batch (\S+?)(?:,| |$)",
        "d": r"d = (\S+?)(?:,| |$)",
        "epochs": r"epochs (\S+?)(?:,| |$)",
    }
    rows = [row for table in TABLES.values() for row in table.rows if "{" in row.title]
    assert len(rows) == 7 + 4 + 5 + 15
    for row in rows:
        ours = scales.row_config(row, SCALES[scale])
        paper = scales.row_config(row, SCALES["imagenet"])
        (field,) = (name for name in numbers if f"{{{name}}}" in row.title)
        title = scales.row_title(row, SCALES[scale])
        assert float(re.search(numbers[field], title)[1]) == getattr(ours, field)
        other = f" ({getattr(paper, field):g} in the paper)"
        assert title.endswith(other) == (getattr(ours, field) != getattr(paper, field)), title


def test_titles_on_the_page():
    runs_of_rows = {name: seeds() for name in ROWS}
    page = results.markdown(runs_of_rows, "fashion_mnist")
    for cell in (
        "batch 16 (64 in the paper)", "d = 32 (256 in the paper)", "d = 256 (2048 in the paper)",
        "SimSiam, batch 64 (256 in the paper)", "BYOL, epochs 64 (800 in the paper)",
    ):  # fmt: skip
        assert f"| {cell} | " in page
    assert "batch 1024 (4096 in the paper): linear 68.0" in page, "a claim names the batch that ran, too"
    assert not re.search(r"\| (batch|d =) \d+ \|", page) and "{" not in page
    base = scales.row_config(ROWS[DECAYED], SCALES["fashion_mnist"])
    assert f"d = {base.d}, {base.epochs:g} epochs, batch {base.batch_size}.\n" in page
    assert "| batch 64 | " in results.markdown(runs_of_rows, "imagenet")
    short = results.markdown(runs_of_rows, "fashion_mnist", epochs=2.0)
    assert "`python -m scripts.paper.reproduce --scale=fashion_mnist --epochs=2`" in short
    assert "; all with --epochs=2." in short and "SimCLR, epochs 4 (200 in the paper)" in short
