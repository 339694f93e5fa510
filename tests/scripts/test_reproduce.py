"""The paper's tables: rows at every scale, runs that continue, metrics, claims."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from test_claims import ROWS, run_metrics

from scripts.paper import SCALES, TABLES, reproduce, results, rows, run_queue, runs, scales
from simsiam_tf.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
DIGITS = "--data=digits\n--backbone=resnet10\n--width=0.125\n--d=16\n--projector_layers=2\n--epochs=1\n"


@pytest.fixture(scope="module")
def made():
    return {
        (scale, name): scales.row_config(row, SCALES[scale]) for scale in SCALES for name, row in ROWS.items()
    }


def test_rows_are_all_flagfiles_of_the_paper():
    files = {str(f.relative_to(ROOT / "flags"))[:-4] for f in ROOT.glob("flags/*/*.cfg")}
    assert set(ROWS) == {name for name in files if name.startswith(("paper/", "compare/"))}


def test_the_papers_scale_is_the_flagfile_itself(made):
    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig

    for name, row in ROWS.items():
        theirs = cli.parse(PretrainConfig, [f"--flagfile={row.flagfile}"])
        ours = dataclasses.replace(made["imagenet", name], workdir=theirs.workdir)
        if theirs.stop_gradient == ours.method_option("stop_gradient"):
            ours = dataclasses.replace(ours, stop_gradient=theirs.stop_gradient)
        assert ours == theirs


@pytest.mark.parametrize(
    ("scale", "batch", "d", "epochs"), [("fashion_mnist", 128, 256, 8), ("cifar10", 512, 2048, 800)]
)
def test_rows_change_of_a_base_what_they_change_of_the_papers(made, scale, batch, d, epochs):
    def of(name):
        return made[scale, name]

    base = of("paper/fig2_with_stop_gradient")
    assert (base.batch_size, base.d, base.epochs, base.h) == (batch, d, epochs, "trained")
    assert of("paper/table2_batch_64").batch_size == batch // 8
    large = of("paper/table2_batch_4096")
    assert large.batch_size == 8 * batch and large.warmup_epochs == pytest.approx(epochs / 10)
    assert of("paper/appb_d_256").d == d // 8
    assert of("paper/table1_a_no_predictor").h == "none" and of("paper/sec5_moving_average").average == 0.8
    assert of("compare/simclr_predictor").h == "trained" and of("compare/simclr").h == "none"
    byol, long = of("compare/byol"), of("compare/byol_800ep")
    assert byol.method == "byol" and byol.batch_size == batch
    assert (byol.epochs, long.epochs, of("compare/simsiam_200ep").epochs) == (epochs, 8 * epochs, 2 * epochs)
    rates = long.base_lr / byol.base_lr, long.weight_decay / byol.weight_decay
    assert rates == pytest.approx((0.2 / 0.45, 1.5), rel=1e-5)
    assert (1 - long.target_momentum) / (1 - byol.target_momentum) == pytest.approx(0.4)
    assert not of("compare/swav_without_stop_gradient").method_option("stop_gradient")
    for name, config in ((n, c) for (s, n), c in made.items() if s == scale):
        changed = scales.row_flags(config) != scales.row_flags(base)
        assert changed != (name == "paper/fig2_with_stop_gradient"), name


def test_long_rows_run_only_where_they_are_named(capsys):
    assert reproduce.main(["--dry_run", "--folder=/nowhere"]) == 0
    assert "ep, seed" not in capsys.readouterr().out
    assert reproduce.main(["--dry_run", "--folder=/nowhere", "--table=table4_long"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if ", seed 0: " in line]
    assert len(listed) == 15 and sum("--epochs=64.0" in line for line in listed) == 5


def test_a_run_once_for_all_rows_that_are_the_same(made):
    def text(name):
        return scales.row_flags(made["fashion_mnist", name])

    assert (
        text("paper/table1_c_constant_lr")
        == text("paper/table3_c_default_bn")
        == text("paper/table2_batch_512")
    )
    assert text("compare/simsiam") == text("paper/table2_batch_256") != text("paper/table2_batch_512")
    assert "--workdir" not in text("compare/simsiam") and "--keep" not in text("compare/simsiam")


class Pretend:
    """Commands that leave what the real ones leave, and are noted. ends: module → exit status."""

    def __init__(self, **ends):
        self.ends, self.called = ends, []

    def __call__(self, arguments, log):
        module = arguments[1].removeprefix("simsiam_tf.")
        self.called.append(module)
        flags = dict(a[2:].split("=", 1) for a in arguments if a.startswith("--"))
        log.write_text(f"{module}: said something\n")
        status = self.ends.get(module, 0)
        if module == "pretrain" and status in (0, runs.DIVERGED):
            folder = Path(flags["workdir"])
            record = {"loss": -0.9, "loss_spread": 0.01, "std": 0.95, "rank": 30.0}
            lines = [{"step": s, **record, "loss": -0.9 * s / 400} for s in range(20, 401, 20)]
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
            (folder / "config.json").write_text(json.dumps({"method": "simsiam", "data": "digits"}))
        if module == "knn_eval":
            found = {"accuracy": {"this backbone": {"k = 20": 0.8}}}
            Path(flags["out"]).write_text(json.dumps(found))
        if module == "probe":
            Path(flags["out"]).write_text(json.dumps({"accuracy": {"this backbone": {"test": 0.85}}}))
        return status


def test_a_run_goes_on_where_it_ended(tmp_path):
    first = Pretend(knn_eval=75)
    with pytest.raises(runs.Interrupted):
        runs.complete_run(DIGITS, "probe", tmp_path / "run", 3, first)
    again = Pretend()
    metrics = runs.complete_run(DIGITS, "probe", tmp_path / "run", 3, again)
    assert first.called == ["pretrain", "knn_eval"] and again.called == ["knn_eval", "probe"]
    assert (metrics["linear"], metrics["knn"], metrics["diagnosis"]) == (0.85, 0.8, "healthy")
    assert metrics["loss"] == pytest.approx(-0.9) and metrics["steps"] == 400 and metrics["seconds"] >= 0
    assert (tmp_path / "run" / "row.cfg").read_text() == DIGITS


def test_a_diverged_run_has_no_accuracy_and_is_not_run_again(tmp_path):
    pretend = Pretend(pretrain=runs.DIVERGED)
    for _ in range(2):
        metrics = runs.complete_run(DIGITS, "probe", tmp_path / "run", 0, pretend)
    assert pretend.called == ["pretrain"]
    assert metrics["diagnosis"] == "divergence" and metrics["linear"] is None and metrics["std"] is None
    assert run_queue.summary_line(metrics).startswith("divergence")


def test_a_folder_in_use_is_waited_for_and_said_once(small, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(runs, "complete_run", lambda *_: run_metrics())
    folder = tmp_path / "runs" / "fashion_mnist" / "paper" / "fig2_with_stop_gradient" / "seed0"
    with runs.folder_lock(folder, lambda: True) as lock:
        clock = types.SimpleNamespace(
            monotonic=time.monotonic, sleep=lambda _: fcntl.flock(lock, fcntl.LOCK_UN)
        )
        monkeypatch.setattr(run_queue, "time", clock)
        assert reproduce.main(small) == 0
    said = capfd.readouterr()
    assert said.err.count(f"waits for another process in {folder}") == 1 and "1 runs added" in said.out


def test_a_failed_command_is_named_with_its_last_line(tmp_path):
    with pytest.raises(
        runs.Failed, match=r"knn: exit status 2: knn_eval: said something \(in .*reproduce.log"
    ):
        runs.complete_run(DIGITS, "probe", tmp_path / "run", 0, Pretend(knn_eval=2))


def test_results_are_kept_and_shown(tmp_path):
    stored = results.Results(tmp_path / "r.json", "fashion_mnist")
    stored.add("a\n", 1, run_metrics(linear=0.8))
    results.Results(tmp_path / "r.json", "fashion_mnist").add("a\n", 0, run_metrics(linear=0.7))
    stored.add("b\n", 0, run_metrics())  # by one who read the file before
    again = results.Results(tmp_path / "r.json", "fashion_mnist")
    assert (
        again.get("a\n", 1)["linear"] == 0.8
        and again.get("b\n", 1) is None
        and again.get("b\n", 0)
        and len(again.runs_of_flags("a\n")) == 2
    )
    page = results.markdown({rows.BASE.name: again.runs_of_flags("a\n")}, "fashion_mnist")
    shown = "68.1 | 75.0 ± 7.1 | 60.0 ± 0.0 | -0.900 ± 0.000 | 0.95 ± 0.00 | healthy | 1.0 | 2 |"
    assert f"| cosine | {shown}" in page and f"| batch 128 (512 in the paper) | {shown}" not in page
    assert "| cross-entropy | 63.2 | | | | | not run yet | | 0 |" in page and "Fig. 2" not in page
    assert page.count("Mean ± standard deviation over the seeds of a row. one CPU; 2026-11-26.") == 1
    with pytest.raises(UserError, match="has results of --scale=fashion_mnist"):
        results.Results(tmp_path / "r.json", "cifar10")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UserError, match="is not a file of results"):
        results.Results(tmp_path / "r.json", "fashion_mnist")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A table of one row, at a scale of seconds."""
    bases = {method: tmp_path / f"{method}.cfg" for method in scales.PAPER}
    for method, base in bases.items():
        base.write_text(f"{DIGITS}--method={method}\n--batch_size=256\n--monitor=none\n")
    tiny = scales.Scale("digits", {k: str(v) for k, v in bases.items()}, "probe --strengths=1", "seconds")
    monkeypatch.setitem(SCALES, "fashion_mnist", tiny)
    monkeypatch.setitem(TABLES, "fig2", rows.Table("one row", (rows.DECAYED,)))
    return [f"--folder={tmp_path / 'runs'}", f"--out={tmp_path / 'out'}", "--table=fig2"]


@pytest.mark.slow
def test_a_table_from_beginning_to_end(small, tmp_path, capfd):
    assert reproduce.main([*small, "--dry_run"]) == 0
    assert "paper/fig2_with_stop_gradient, seed 0: --data=digits" in capfd.readouterr().out
    assert not (tmp_path / "out.md").exists()
    assert reproduce.main(small) == 0
    said = capfd.readouterr()
    assert "1 runs added, 0 failed" in said.out and "[1/1, about 0 s left]" in said.err
    page = (tmp_path / "out.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| SimSiam, lr of h decayed"))
    linear, knn = (float(cell) for cell in row.split("|")[3:5])
    assert 30 < knn <= 100 and 30 < linear <= 100
    began = time.monotonic()
    assert reproduce.main(small) == 0 and time.monotonic() - began < 5
    assert "1 of them done" in capfd.readouterr().out


def test_a_run_that_cannot_be_is_reported_and_the_status_says_so(small, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(runs, "start_process", lambda *_: _python("raise SystemExit('not today')"))
    assert reproduce.main(small) == 1
    said = capfd.readouterr()
    assert "FAILED: pretrain: exit status 1" in said.err and "0 runs added, 1 failed" in said.out


def _python(code):
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def test_a_signal_ends_what_runs(small, monkeypatch, capfd):
    monkeypatch.setattr(runs, "start_process", lambda *_: _python("import time; time.sleep(60)"))
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    assert reproduce.main(small) == 75 and time.monotonic() - began < 20
    said = capfd.readouterr()
    assert "Rerun the same command" in said.err and "0 runs added, 0 failed" in said.out


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--table=tabel1", "no table 'tabel1'. Choose from all, fig2"),
        ("--scale=cifar", "--scale=cifar: no such value. Did you mean cifar10?"),
        ("--seeds=0", "--seeds=0: must be from 1"),
        ("--out=/dev/null/here", "--out=/dev/null/here.md: cannot be written (File exists)"),
    ],
)
def test_bad_input(flag, said, capsys):
    assert reproduce.main([flag]) == 2
    assert said in capsys.readouterr().err
