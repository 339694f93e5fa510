"""gpu.sh: the page's tables from figures that are made up here, commands that parse, and stages that fail."""

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import bench_harness
import gpu_page
import gpu_sampler
import gpu_stages
import profile_step
import pytest

ROOT = Path(__file__).parents[2]
MACHINE = {
    "status": "machine", "card": "NVIDIA H100, 81559 MiB, 570.1", "cpu": "a CPU, 16 cores",
    "date": "2026-12-01", "tensorflow": "2.21.0", "keras": "3.15.1",
    "torch": "2.13.0", "device": "gpu", "tiny": False,
}  # fmt: skip


def step(stage, name, seconds, peak, batch=256, item=1, precision="bfloat16"):
    timings = {
        "median_seconds": {name: seconds}, "gpu_peak_mib": {name: peak}, "peak_mib": {name: 3000.0},
        "metadata": {name: {"batch": batch, "estimated_mib": peak / 1.25}}, "notes": {},
    }  # fmt: skip
    return {"stage": stage, "item": item, "status": "done", "result": {"results": {precision: timings}}}


def failed(stage, item, reason):
    return {"stage": stage, "item": item, "status": "failed", "reason": reason}


FIGURES = [
    MACHINE,
    step("ours", "ours", 0.2, 40000.0),
    step("PyTorch", "torch", 0.125, 30000.0),
    failed("ours, whole step by XLA", 1, "no result within 150 s"),
    step("ours, whole step by XLA", "ours, XLA", 0.1, 50000.0),  # rerun
    failed("PyTorch, torch.compile", 1, "out of memory"),
    {
        "stage": "profile of the fastest", "item": 2, "status": "done",
        "result": {
            "gpu": "H100", "step": 0.1, "operation_seconds": {"BN": 0.02, "convolutions": 0.06, "idle": 0.02},
            "calls": {"BN": 106.0, "convolutions": 318.0},
        },
    },
    {
        "stage": "views on the device", "item": 3, "status": "done",
        "result": {
            "median_seconds": {"ours": 0.0005}, "peak_mib": {"ours": 5000.0},
            "notes": {"ours": {"waiting": 0.034}}, "gpu_utilisation": {"ours": 97.6},
        },
    },
    {
        "stage": "quickstart", "item": 4, "status": "done",
        "result": {"losses": [-0.001 * n for n in range(1, 101)], "runs": [{"training": 0.99}]},
    },
    step("batch 64", "ours", 0.06, 10000.0, batch=64, item=5),
    {
        "stage": "kNN", "item": 6, "status": "done",
        "result": {
            "queries": 50000, "bank": 1281167, "features": 2048, "seconds": 40.0,
            "operations a second": 6.55e12, "seconds of ImageNet": 40.0, "seconds of all pairs": 7200.0,
        },
    },
]  # fmt: skip


def test_the_tables_have_each_figure_once():
    text = gpu_page.tables(FIGURES)
    for line in (
        "NVIDIA H100, 81559 MiB, 570.1 (memory, driver); a CPU, 16 cores; tensorflow 2.21.0, keras 3.15.1",
        "| ours | bfloat16 | 256 | 0.2000 | 1.60 | 40,000 |",
        "| PyTorch | bfloat16 | 256 | 0.1250 |  | 30,000 |",
        "| ours, whole step by XLA | bfloat16 | 256 | 0.1000 | 0.80 | 50,000 |",
        "| PyTorch, torch.compile | failed: out of memory |  |  |  |  |",
        "The fastest of ours: ours, whole step by XLA, 0.80 of PyTorch's time.",
        "| – convolutions | 60.0 | 60% | 318 |",
        "| – idle | 20.0 | 20% | – |",
        "| views on the device | 2,000.0 | 3.4% | 98 % | 5,000 |",
        "| quickstart | 100 | 10.0 | -0.0010 | -0.0100 | -0.0200 | -0.1000 |  | -0.1000 |",
        "| 64 | 10,000 | 8,000 | 1.25 |",
        "| 256 | 40,000 | 32,000 | 1.25 |",
        "| 50,000 | 1,281,167 | 2048 | 40.00 | 6.55 | 40 | 2.00 |",
    ):
        assert text.count(line) == 1, line
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for table in (list(g) for _, g in itertools.groupby(text.splitlines(), lambda x: x.startswith("|"))):
        assert len({row.count("|") for row in table if row.startswith("|")}) <= 1, table
    assert len(rows) == sum(2 for _ in gpu_page.TITLES) + 4 + 4 + 1 + 1 + 2 + 1


def test_the_page_keeps_what_is_outside_of_the_markers(tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    before = page.read_text()
    for _ in range(2):
        gpu_page.write_page(page, FIGURES)
        text = page.read_text()
        assert text.partition(gpu_page.BEGIN)[0] == before.partition(gpu_page.BEGIN)[0]
        assert text.partition(gpu_page.END)[2] == before.partition(gpu_page.END)[2]
        assert text.count("### 1. A step") == 1
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        gpu_page.write_page(page, FIGURES)


def test_a_line_that_was_cut_is_left_out(tmp_path):
    log = tmp_path / "figures.jsonl"
    log.write_text("\n".join(json.dumps(line) for line in FIGURES[:2]) + '\n{"stage": "PyT')
    assert gpu_page.read(log) == FIGURES[:2] and gpu_page.read(tmp_path / "none") == []


class Parsed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("tiny", [False, True], ids=["full", "tiny"])
@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_every_item_has_commands_that_their_scripts_parse(monkeypatch, device, tiny):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, argv=None, namespace=None):
        parse(self, argv, namespace)
        raise Parsed

    chosen = gpu_stages.stages(device, tiny)
    xla = step("ours, whole step by XLA", "ours, XLA", 0.1, 1.0)
    chosen += [gpu_stages.with_winner(stage, [MACHINE, xla]) for stage in chosen if stage.of_winner]
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    assert {stage.item for stage in chosen} == set(gpu_page.TITLES) == set(range(1, 7))
    for stage in chosen:
        script, *flags = stage.command
        with pytest.raises(Parsed):
            importlib.import_module(Path(script).stem).main(["--json=x", *flags])


def test_the_list_is_printed_without_running_anything(capsys):
    assert gpu_stages.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gpu_stages.stages()) and lines[0].split()[:2] == ["1", "ours"]
    assert any("TF_XLA_FLAGS=--tf_xla_auto_jit=2 bench_step.py" in line for line in lines)


def test_the_fastest_step_is_profiled():
    stage = next(s for s in gpu_stages.stages() if s.item == 2)
    assert "--xla" in gpu_stages.with_winner(stage, FIGURES).command
    assert gpu_stages.with_winner(stage, FIGURES[:3]) == stage
    clustered = [*FIGURES, step("ours, autoclustering", "ours", 0.09, 1.0)]
    assert gpu_stages.with_winner(stage, clustered).environment == gpu_stages.AUTOCLUSTERING


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Scripts in place of the benchmarks."""
    monkeypatch.setattr(gpu_stages, "HERE", tmp_path)
    bodies = {
        "done.py": "open(sys.argv[1][7:], 'w').write('{\"x\": 1}')",
        "hangs.py": "subprocess.Popen(['sleep', '77']); print('begun', flush=True); time.sleep(77)",
        "raises.py": "raise ValueError('a | b')",
        "memory.py": "print('E tensorflow: RESOURCE_EXHAUSTED: OOM'); print('later'); sys.exit(1)",
        "exits.py": "print('--device=gpu: no GPU'); print('ours ended early'); sys.exit(1)",
    }
    for name, body in bodies.items():
        (tmp_path / name).write_text(f"import subprocess, sys, time\n{body}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("done.py", {"status": "done", "result": {"x": 1}}),
        ("raises.py", {"status": "failed", "reason": "ValueError: a / b"}),
        ("memory.py", {"status": "failed", "reason": "out of memory"}),
        ("exits.py", {"status": "failed", "reason": "--device=gpu: no GPU"}),
    ],
)
def test_a_stage_ends_with_a_result_or_a_reason(scripts, script, expected):
    assert gpu_stages.run_stage(gpu_stages.Stage("x", 1, 60, (script,)), 60, dict(os.environ)) == expected


def test_a_stage_that_hangs_is_ended_with_its_children(scripts):
    began = time.monotonic()
    outcome = gpu_stages.run_stage(gpu_stages.Stage("x", 1, 3, ("hangs.py",)), 3, dict(os.environ))
    assert outcome == {"status": "failed", "reason": "no result within 3 s"} and time.monotonic() - began < 40
    while any(b"sleep\x0077\x00" in _text(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() - began < 60  # a killed process may take a moment to go
        time.sleep(0.1)


def _text(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_stages_that_need_torch_say_that_it_is_missing(monkeypatch):
    monkeypatch.setattr(gpu_stages.importlib.util, "find_spec", lambda name: None)
    stage = next(s for s in gpu_stages.stages() if s.torch)
    outcome = gpu_stages.run_stage(stage, 1, {})
    assert outcome == {"status": "skipped", "reason": "torch is not installed"}


def test_a_rerun_repeats_only_what_is_not_done(tmp_path, scripts, monkeypatch):
    out, began = tmp_path / "out", []
    chosen = [
        gpu_stages.Stage("good", 6, 60, ("done.py",)), gpu_stages.Stage("bad", 1, 60, ("memory.py",)),
        gpu_stages.Stage("smaller", 1, 60, ("memory.py",), smaller_than="bad"),
        gpu_stages.Stage("not reached", 1, 60, ("memory.py",), smaller_than="good"),
    ]  # fmt: skip
    monkeypatch.setattr(gpu_stages, "stages", lambda *args: chosen)
    monkeypatch.setattr(gpu_page, "write_page", lambda page, figures: began.append(len(figures)))
    argv = [str(out), "--device=cpu", "--tiny"]
    for _ in range(2):
        assert gpu_stages.main(argv) == 0
    lines = gpu_page.read(out / "figures.jsonl")
    assert [line.get("stage") for line in lines] == [None, "good", "bad", "smaller", "bad", "smaller"]
    assert began == [2, 3, 4, 5, 6]  # after every stage
    assert gpu_stages.main([str(out), "--device=cpu"]) == 2  # other sizes
    assert gpu_stages.main([*argv, "--minutes=0.1"]) == 0
    assert gpu_page.read(out / "figures.jsonl")[-1]["status"] == "not run"


def test_utilisation_is_the_mean_of_samples_within_the_calls(tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 40; echo '[N/A]'; echo 60; exec sleep 99\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with gpu_sampler.sampling() as samples:
        while len(samples.values) < 2:
            time.sleep(0.01)
    now = time.perf_counter()
    assert samples.mean([(now - 60, now)]) == 50 and samples.mean([(now, now + 1)]) is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with gpu_sampler.sampling() as samples:
        assert samples.values == []
    assert gpu_sampler.peak_mib() is None  # there is no GPU


def test_kernels_are_sorted_by_the_operation_that_started_them():
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    plane = xplane_pb2.XPlane(name="/device:GPU:0")
    texts = {
        1: "tf_op", 2: "hlo_op", 3: "model/conv/Conv2D:Conv2D", 4: "p:PartitionedCall",
        5: "loop_convert_fusion.3", 6: "cudnn-conv-bias.1",
    }  # fmt: skip
    for number, text in texts.items():
        plane.stat_metadata[number].name = text
    line = plane.lines.add(name="Stream #13(Compute)")
    for references in ({1: 3}, {1: 4, 2: 5}, {1: 4, 2: 6}, {}):
        event = line.events.add(duration_ps=2 * 10**9)
        for key, reference in references.items():
            event.stats.add(metadata_id=key, ref_value=reference)
    plane.lines.add(name="Steps").events.add(duration_ps=10**12)
    space = xplane_pb2.XSpace(planes=[plane, xplane_pb2.XPlane(name="/host:CPU")])
    names = ["convolutions", "functions of XLA", "convolutions and products of XLA", "the rest"]
    assert list(profile_step.kernels(space)) == [(name, 0.002) for name in names]


def test_without_a_gpu_nothing_is_measured_as_if_there_were_one():
    with pytest.raises(SystemExit, match="finds no GPU"):
        bench_harness.check_gpu("gpu")
    bench_harness.check_gpu("cpu")


@pytest.mark.slow
def test_pytorch_runs_without_tensorflow(tmp_path):
    flags = ["--only=torch", "--batch_size=2", "--repeats=1", "--calls=1", "--precision=float32"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/bench/bench_step.py", *flags], cwd=ROOT, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and "torch" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_the_tiny_list_runs_without_a_failure(tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "scripts/bench/gpu.sh", tmp_path, "--device=cpu", "--tiny"],
        capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = gpu_page.newest(gpu_page.read(tmp_path / "figures.jsonl"))
    assert {name: line["reason"] for name, line in lines.items() if line["status"] != "done"} == {}
    assert "failed" not in gpu_page.tables(gpu_page.read(tmp_path / "figures.jsonl"))
