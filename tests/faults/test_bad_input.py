"""Forty inputs that cannot work: one line each, exit status 2, before any work; nothing is left behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simsiam_tf.command_line.cli import LOADING

NO_WORK = [str(Path(__file__).with_name("no_work.py"))]
TINY = ["--data=digits", "--backbone=resnet10", "--width=0.125", "--epochs=1", "--monitor=none"]

# (name, flags, what the line says); WORK is the work folder. These end before TensorFlow loads.
AT_ONCE = [
    ("unknown flag", ["--epohcs=3"], r"--epohcs: no such flag. Did you mean --epochs\?"),
    ("unknown choice", ["--backbone=resnet81"], r"Did you mean resnet18\?"),
    ("no number", ["--epochs=many"], r"epochs"),
    ("zero epochs", ["--epochs=0"], r"--epochs=0: trains nothing"),
    ("negative epochs", ["--epochs=-1"], r"must be above 0"),
    ("not a number", ["--base_lr=nan"], r"--base_lr=nan: must be from"),
    ("infinite", ["--base_lr=inf"], r"--base_lr=inf: must be from"),
    ("negative seed", ["--seed=-1"], r"--seed=-1: must be from 0"),
    ("fraction for a whole number", ["--batch_size=1.5"], r"batch_size"),
    ("one image a step", ["--batch_size=1"], r"--batch_size=1: must be from 2"),
    ("warm-up beyond the end", ["--warmup_epochs=200"], r"must be below --epochs"),
    ("crop above the image", ["--crop_area=1.5"], r"--crop_area=1.5: must be from"),
    ("nothing kept", ["--keep=0"], r"--keep=0: must be from 1"),
    ("no truth value", ["--stop_gradient=perhaps"], r"stop_gradient"),
    ("stray word", ["digits"], r"'digits': stray argument"),
    ("missing flagfile", ["--flagfile=flags/quikstart.cfg"], r"Did you mean flags/quickstart.cfg\?"),
    ("flagfile without name", ["--flagfile"], r"names no file"),
    ("flagfile that is a folder", ["--flagfile=/tmp"], r"/tmp: no such file"),
    ("flagfile that is no text", ["--flagfile=WORK.bin"], r"WORK.bin: .* is not a flag"),
    ("flagfile that includes itself", ["--flagfile=WORK.loop"], r"includes itself"),
    ("moot with no predictor", ["--predictor=none", "--predictor_hidden=64"], r"has no effect"),
    ("moot without monitor", ["--monitor=none", "--knn_every=3"], r"has no effect"),
    ("moot without output BN", ["--bn=none", "--output_affine=false"], r"has no effect"),
    ("missing folder", ["--data=folder:/no/such/place"], r"no such folder"),
]

# These need the data or TensorFlow.
LATER = [
    ("unknown data", ["--data=fashion_mnits"], r"Did you mean fashion_mnist\?"),
    ("unknown TFDS set", ["--data=tfds:cifar01"], r"TFDS has no such set. Did you mean"),
    ("folder without images", ["--data=folder:WORK.empty"], r"holds no image"),
    ("folder of text", ["--data=folder:WORK.text"], r"1 of 1 image cannot be decoded, such as a.jpg"),
    ("a file for a folder", ["--data=folder:WORK.bin"], r"is a file. Pass --data=list:WORK.bin"),
    ("empty slice", ["--data=digits:train[5000:]"], r"the slice holds no image"),
    ("unknown split", ["--data=digits:dev"], r"'dev' is not a split"),
    ("batch above the data", ["--batch_size=2000"], r"Try --batch_size=1024"),
    ("monitor without labels", ["--monitor=folder:WORK.few", "--data=folder:WORK.few", "--batch_size=2"],
     r"has no labels"),
    ("monitor of another kind", ["--monitor=digits", "--data=folder:WORK.few", "--batch_size=2"],
     r"channels"),
    ("missing weights", ["--weights=/no/such.keras"], r"no such file"),
    ("weights that are text", ["--weights=WORK.keras"], r"WORK.keras"),
    ("work folder below a file", ["--workdir=WORK.bin/run"], r"cannot be written"),
    ("work folder that cannot be", ["--workdir=/proc/nothing"], r"cannot be written"),
    ("no cluster", ["--strategy=multi_worker"], r"neither TF_CONFIG nor a Slurm job"),
    ("no TPU", ["--strategy=tpu"], r"no TPU is attached"),
    ("TF_CONFIG that is no JSON", ["TF_CONFIG={"], r"TF_CONFIG"),
    ("TF_CONFIG without a task", ['TF_CONFIG={"cluster": {"worker": ["a:1", "b:2"]}}'], r"TF_CONFIG"),
    ("another run's folder", ["--workdir=WORK.other", "--base_lr=0.1"], r"--base_lr was 0.4, is 0.1"),
    ("a damaged configuration", ["--workdir=WORK.broken"], r"config.json: unreadable"),
    ("checkpoints of nobody", ["--workdir=WORK.orphan"], r"has checkpoints but no config.json"),
]  # fmt: skip
SHORT_OF_LATER = {"a damaged configuration"}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Prefix of the paths that the inputs name."""
    from PIL import Image

    root = tmp_path_factory.mktemp("bad") / "work"
    beside = lambda end: root.parent / f"work.{end}"
    for folder in ("empty", "text", "few", "other", "broken", "orphan/checkpoints/step-00000005"):
        beside(folder).mkdir(parents=True)
    beside("bin").write_bytes(b"\x00\xff\xfe--epochs=3\x80")
    beside("keras").write_text("not a model")
    beside("loop").write_text(f"--flagfile={beside('loop')}\n")
    (beside("text") / "a.jpg").write_text("no picture")
    for i in range(4):
        Image.fromarray(np.full((9, 9, 3), 40 * i, np.uint8)).save(beside("few") / f"{i}.png")
    (beside("other") / "config.json").write_text(json.dumps({"base_lr": 0.4, "facts": {}}))
    (beside("broken") / "config.json").write_text('{"base_lr": 0.')
    return root


def assert_one_line(work, flags, expected, command, **environment):
    filled = [f.replace("WORK", str(work)) for f in flags]
    environment |= dict(f.split("=", 1) for f in filled if f.startswith("TF_CONFIG"))
    given = [f for f in filled if not f.startswith("TF_CONFIG")]
    if not any(f.startswith("--workdir") for f in given):
        given.insert(0, f"--workdir={work}")
    before = sorted(str(p) for p in work.parent.rglob("*"))
    done = subprocess.run(
        [sys.executable, *command, *TINY, *given],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip
    slow = (LOADING, "listing the images", "opening the weights")
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith(slow)]
    assert done.returncode == 2 and not done.stdout, (done.returncode, done.stderr)
    assert len(lines) == 1, done.stderr
    assert re.search(expected.replace("WORK", re.escape(str(work))), lines[0]), lines[0]
    new = {p for p in map(str, work.parent.rglob("*")) if p not in before}
    assert not [p for p in new if "checkpoints" in p or p.endswith((".tmp", "config.json"))], new


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """A path on which `import tensorflow` fails."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')\n")
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


@pytest.mark.parametrize(("name", "flags", "expected"), AT_ONCE, ids=[c[0] for c in AT_ONCE])
def test_refused_before_tensorflow_loads(work, without_tensorflow, name, flags, expected):
    assert_one_line(work, flags, expected, ["-m", "simsiam_tf.pretrain"], PYTHONPATH=without_tensorflow)


SHORT = [pytest.param(*case, id=case[0], marks=() if case[0] in SHORT_OF_LATER else pytest.mark.slow)
         for case in LATER]  # fmt: skip


@pytest.mark.parametrize(("name", "flags", "expected"), SHORT)
def test_refused_before_any_work(work, name, flags, expected):
    assert_one_line(work, flags, expected, NO_WORK)
