"""The scaling model: formulas by hand, counts against the real model and graph, a page that is not stale."""

import collections
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bench_allreduce
import interconnects
import numpy as np
import pytest
import scaling
import scaling_model
from interconnects import Link

ROOT = Path(__file__).parents[2]
SLOW, FAST = Link(1e9, 1e-3), Link(8e9, 1e-6)


@pytest.fixture(scope="module")
def sent():
    return scaling_model.count_step("flags/imagenet/simsiam_100ep.cfg")


@pytest.fixture(scope="module")
def systems(sent):
    return interconnects.systems(
        sent.flops, 6.0, Link(0.22e9, 0.72e-3), {"A100": 0.2, "H100": 0.1, "TPU v4": 0.2}
    )


def test_ring_by_hand():
    # Four members send three quarters of 1 GB twice over 1 GB/s, in six hops of 1 ms.
    assert interconnects.ring(4, 1e9, SLOW) == pytest.approx(1.5 + 0.006)
    assert interconnects.ring(2, 0, SLOW) == pytest.approx(0.002) and interconnects.ring(1, 1e9, SLOW) == 0


def test_rings_within_rings_by_hand():
    rings = [(8, FAST), (4, SLOW)]
    # 14/8 · 0.8 GB over 8 GB/s and 14 µs inside; then 6/4 of an eighth, 0.1 GB, over 1 GB/s and 6 ms.
    assert interconnects.all_reduce(rings, 0.8e9, start=1.0) == pytest.approx(
        1 + 0.175 + 14e-6 + 0.15 + 0.006
    )
    assert interconnects.all_gather(rings, 0.8e9) == pytest.approx((0.175 + 14e-6 + 0.15 + 0.006) / 2)
    torus = [(k, SLOW) for k in interconnects.torus_shape(64)]
    # Of the bytes as much as in one ring of 64, of the hops no more than along the axes.
    assert interconnects.all_reduce(torus, 1e9) == pytest.approx(2 * 63 / 64 + 2 * 3 * 3e-3)


def test_a_tree_by_hand():
    rings = [(8, Link(1, 1, 0.5)), (64, Link(1, 1, 5.0))]
    assert interconnects.tree(rings, start=4.0) == pytest.approx(4 + 2 * (7 * 0.5 + 6 * 5.0))


def test_torus_shapes():
    assert [interconnects.torus_shape(n) for n in (8, 32, 64, 512)] == [
        (2, 2, 2),
        (4, 4, 2),
        (4, 4, 4),
        (8, 8, 8),
    ]
    with pytest.raises(ValueError, match="power of two"):
        interconnects.torus_shape(48)


def test_efficiency_by_hand():
    step = scaling_model.StepSeconds(compute=4.0, gradient=3.0, norm=3.0)
    assert (step.no_overlap, step.full_overlap, step.gradient_overlap) == (10.0, 6.0, 7.0)
    assert step.efficiency(step.no_overlap) == 0.4
    assert scaling_model.StepSeconds(compute=4.0, gradient=1.0).full_overlap == 4.0


@pytest.mark.slow
def test_more_accelerators_and_bytes_take_longer_and_faster_links_less(sent, systems):
    for system in systems.values():
        for size in (0, 1e6, 1e9):
            times = [system.all_reduce(2**k, size) for k in range(3, 10)]
            assert times == sorted(set(times)), (system.name, size)
        assert system.all_reduce(64, 2e9) > system.all_reduce(64, 1e9) > system.all_reduce(64, 0) > 0
        for weak in (True, False):
            steps = [
                scaling_model.step_seconds(system, 2**k, 64 if weak else 512 / 2**k, sent)
                for k in range(3, 10)
            ]
            shares = [s.efficiency(s.no_overlap) for s in steps]
            assert shares == sorted(set(shares), reverse=True) and all(0 < x < 1 for x in shares)
            assert all(s.compute <= s.full_overlap <= s.no_overlap for s in steps)
    ports = [systems[f"H100, {ports} Gbit/s"].all_reduce(64, 1e9) for ports in ("8 × 400", "1 × 100")]
    assert ports[0] < ports[1]


def test_counts_are_those_of_the_model(sent):
    from simsiam_tf import SimSiam, nets

    model = SimSiam(nets.resnet50())
    assert sent.gradient_bytes == sum(4 * int(np.prod(v.shape)) for v in model.trainable_variables)
    norms = [v for v in model.weights if v.path.endswith("/moving_mean")]
    assert (sent.layers, sent.channels) == (len(norms), sum(int(v.shape[0]) for v in norms))
    assert sent.layers == 53 + 3 + 1  # ResNet-50, projector, predictor
    assert (sent.views, sent.d, sent.norm_all_reduces) == (2, 2048, 57 * 2)
    assert sent.z_bytes(512) == 512 * 2048 * 4
    # A ResNet-50 takes 4.09 billion multiplications for an image; backward twice as many, two views.
    assert sent.flops == pytest.approx(2 * 3 * 2 * 4.09e9, rel=0.02)


def collectives():
    """In a worker: (kind, elements, dtype) of a small step's collective operations; BN layers; parameters."""
    import keras
    import tensorflow as tf

    from simsiam_tf import SimSiam, nets, optimizers
    from simsiam_tf.distributed import strategies

    strategy = strategies.strategy_by_name("multi_worker")
    with strategy.scope():
        x = images = keras.Input((8, 8, 1))
        x = keras.layers.ReLU()(nets.BatchNorm()(nets.Conv(8, 3, 2)(x)))
        model = SimSiam(keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)), d=32)
        model.compile(optimizers.SGD(0.1))
        model.optimizer.build(model.learned_variables())
    views = (tf.zeros([4, 8, 8, 1]),) * 2
    call = tf.function(lambda a, b: strategy.run(model.step, args=((a, b),)), autograph=False)
    operations = call.get_concrete_function(*views).graph.get_operations()
    sent = [(op.type, op.inputs[0]) for op in operations if op.type.startswith("Collective")]
    found = [(kind, x.shape.num_elements(), x.dtype.name) for kind, x in sent]
    layers = sum(v.path.endswith("moving_mean") for v in model.weights)
    return found, layers, sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.slow
def test_the_graph_of_two_workers_has_these_collectives_and_no_others():
    (found, layers, parameters), _ = bench_allreduce.run_workers(2, collectives)
    assert layers == 1 + 3 + 1
    small = scaling_model.StepCounts(parameters, layers, 0, 2, 32, 0.0)
    gradient = [f for f in found if f[1] == parameters]
    assert gradient == [("CollectiveReduceV2", parameters, "float32")]
    assert 4 * gradient[0][1] == small.gradient_bytes
    assert collections.Counter(f[0] for f in found) == {"CollectiveReduceV2": small.norm_all_reduces + 1}


def tables_of(text):
    return [block.strip() for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]


@pytest.mark.slow
def test_the_page_has_the_tables_that_the_script_prints(capsys):
    assert scaling.main([]) == 0
    printed = tables_of(capsys.readouterr().out)
    assert len(printed) == 8
    assert tables_of((ROOT / "docs" / "scaling.md").read_text()) == printed


def test_features_of_a_set_by_hand():
    flags = ["--embed_rate", "1000", "2000", "--host_rate=500", "--check_rate=1000", "--image_bytes=1e5"]
    args = scaling._arguments([*flags, "--h100_factor=2", "--embed_images=72e6"])
    names = "A100, 8 × 200 Gbit/s", scaling.NCCL
    systems = {name: SimpleNamespace(cores=cores) for name, cores in zip(names, (16, 14), strict=True)}
    rows = [line.strip("| ").split(" | ") for line in scaling._features(args, systems).splitlines()[2:]]
    assert rows == [
        ["A100, embed", "8,000", "2.5", "16", "24", "128", "0.8"],
        ["A100, embed --fast", "16,000", "1.2", "32", "48", "128", "1.6"],
        ["H100, embed", "16,000", "1.2", "32", "48", "112", "1.6"],
        ["H100, embed --fast", "32,000", "0.6", "64", "96", "112", "3.2"],
    ]


def test_measured_defaults_are_those_of_the_performance_notes():
    args = scaling._arguments([])
    notes = (ROOT / "docs" / "performance.md").read_text()
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert f"| bfloat16 | {args.cpu_step} |" in notes.partition("`resnet50 --calls=1` (batch 16)")[2]
    assert f"host stage alone | {args.host_rate:g} |" in notes
    assert f"all on the host | {args.host_rate_all:g} |" in notes
    assert f"| decoder alone | {args.check_rate:,.0f} |" in notes
    grpc = 1e3 * args.grpc_hop, args.grpc_bandwidth / 1e9
    for value in (args.cpu_step, args.host_rate, args.host_rate_all, *grpc):
        assert re.search(rf"\b{value:g}\b", page), value


def test_flags_reach_the_tables(tmp_path, monkeypatch, capsys, sent):
    monkeypatch.setattr(scaling, "count_step", lambda flagfile: sent)
    path = tmp_path / "figures.json"
    flags = ["--step_seconds=0.5", "--batch=32", "--accelerators", "16", f"--json={path}"]
    assert scaling.main(flags) == 0
    assert "32 images each | n = 16 |" in capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    gpus = [r for r in rows if r["system"].startswith(("A100", "H100", "TPU")) and r["scaling"] == "weak"]
    assert len(gpus) == 5 and all(r["compute"] == pytest.approx(0.5) for r in gpus)
    with pytest.raises(SystemExit):
        scaling.main(["--accelerators", "12"])


@pytest.mark.parametrize("name", ["scaling", "bench_allreduce"])
def test_help(name):
    script = ROOT / "scripts" / "bench" / f"{name}.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--json" in done.stdout, done.stderr
