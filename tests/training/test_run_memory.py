"""The parts of the memory estimate by hand, and one run beside its estimate."""

import dataclasses
import json
import math
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.runs import tiny

from simsiam_tf.data import AUGMENTATIONS, Views, pipeline
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.decoded import bytes_in_memory
from simsiam_tf.data.sources.file_records import RECORD
from simsiam_tf.training import run_memory
from simsiam_tf.training.build_run import build_pretraining
from simsiam_tf.training.run_memory import RunMemory

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "bench_memory.py"


def test_the_peak_is_that_of_the_steps_or_that_of_the_decoding():
    memory = RunMemory(current=1000, compiled=100, step=500, batches=50, images=200)
    assert memory.process == 1000 + 200 + 650
    assert dataclasses.replace(memory, export=30).process == 1000 + 200 + 680
    assert dataclasses.replace(memory, decoding=700).process == 1000 + 200 + 700
    assert dataclasses.replace(memory, decoding=600).process == memory.process


def test_a_gpu_holds_weights_and_tensors_and_the_host_the_rest(monkeypatch):
    gib = 2**30
    memory = RunMemory(gib, gib, 8 * gib, gib, variables=gib, replicas=2)
    assert memory.in_words().startswith("11.00 GiB at the peak of the process: 1.00 for libraries")
    monkeypatch.setattr(run_memory, "on_cpu", lambda: False)
    assert memory.in_words().startswith("5.00 GiB on each device, 1.00 of these for weights")
    assert memory.in_words().endswith("3.00 GiB of the host")


def test_batches_by_hand(monkeypatch):
    monkeypatch.setattr(pipeline, "PARALLEL", 2)
    views = Views(dataclasses.replace(AUGMENTATIONS["cifar"], size=32))
    components: Any = types.SimpleNamespace(views=views, source=types.SimpleNamespace(channels=3))
    view = tf.TensorSpec([512, 32, 32, 3])
    batch = {"views": (view, view), "index": tf.TensorSpec([512], tf.int64)}
    size = 2 * 512 * 32 * 32 * 3 * 4 + 512 * 8
    piece = 8 * 7 * 7 * 2 * 32 * 32 * 3 * 4  # rows of 32 pixels in 8 of 224, both views
    # Two wait, one is read, one is joined; two pieces are made, three stages each.
    assert run_memory.batch_bytes(batch, components) == 4 * size + 6 * piece


def encoded(*sides):
    headers = np.zeros(len(sides), RECORD)
    headers["height"], headers["width"] = np.array(sides).T
    return EncodedSource("files", len(sides), 3, None, (), "", read=tf.io.read_file, headers=headers)


def test_decoded_images_by_hand():
    assert bytes_in_memory(encoded((20, 30)), None) == (2 * 20 * 30 * 3, 0)  # an array and a tensor
    assert bytes_in_memory(encoded((20, 30), (30, 20)), None)[0] == 2 * 2 * 20 * 30 * 3
    assert bytes_in_memory(encoded((20, 30), (20, 31)), None) == (0, 0)  # of several sizes
    assert bytes_in_memory(encoded((20, 129)), None) == (0, 0)  # too large
    assert bytes_in_memory(encoded((500, 300), (20, 31)), 64) == (2 * 64 * 64 * 3,) * 2  # squares


@pytest.mark.slow
def test_the_estimate_of_a_tiny_run_has_its_weights_and_its_activations(tmp_path):
    config = tiny(tmp_path, "--monitor=none")
    components = build_pretraining(config, decodes=False)
    memory = run_memory.estimate(components, config, whitened=100)
    trained = sum(math.prod(v.shape) for v in components.model.trainable_variables)
    by_hand = 4 * (components.model.count_params() + trained)  # each trained number has its momentum
    assert by_hand <= memory.variables <= by_hand + 256  # the step, the means of metrics
    assert memory.export == 4 * components.model.count_params() + 6 * 100 * 100 * 8
    # The first map of each view, 8 channels of 8×8 pixels, is an input of the gradient.
    assert memory.step > 2 * 64 * 8 * 8 * 8 * 4
    assert memory.current > 200 * 2**20


@pytest.mark.slow
def test_a_run_takes_what_its_dry_run_estimates(tmp_path):
    # In a process of its own: a child's peak is at least that of the process that starts it.
    path = tmp_path / "memory.json"
    command = [sys.executable, SCRIPT, "--runs=simclr resnet10", f"--json={path}"]
    subprocess.run(command, check=True)
    (result,) = json.loads(path.read_text())["results"].values()
    assert 0.85 < result["ratio"] < 1.15
