"""The files of a release: weights that open by path and address, archives with the same bytes each time."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import small_backbones

import simsiam_tf as ss
from scripts import release_weights
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.pretrained import backbone_file, weights_address

ROOT = Path(__file__).parents[2]


def test_weights_of_a_run_become_three_files_that_open(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    run = small_backbones.exported(tmp_path / "run", AUGMENTATIONS["cifar"], channels=3)
    card = backbone_file.read_card(run)
    card |= {"networks beside": {"projector": "0" * 64}, "data": "list:/home/anna/set.csv", "images": 20}
    card["configuration"] |= {"workdir": str(run), "data": "list:/home/anna/set.csv"}
    (run / "export" / "backbone.json").write_text(backbone_file.card_text(card))
    assert release_weights.main([f"--out={tmp_path}/dist", f"small={run}"]) == 0
    network = (run / "export" / "backbone.keras").read_bytes()
    stem = f"small-{hashlib.sha256(network).hexdigest()[:8]}"
    files = {path.name: path for path in (tmp_path / "dist").iterdir()}
    assert {*files} == {f"{stem}.keras", f"{stem}.json", f"{stem}.md"}
    assert files[f"{stem}.keras"].read_bytes() == network
    texts = files[f"{stem}.json"].read_text(), files[f"{stem}.md"].read_text()
    assert not any("anna" in text or str(tmp_path) in text for text in texts)
    released = json.loads(texts[0])
    assert released["file"] == f"{stem}.keras" and "networks beside" not in released
    assert (released["data"], released["views"]) == ("list:set.csv", card["views"])
    address = f"{files[f'{stem}.json']}#sha256={hashlib.sha256(texts[0].encode()).hexdigest()}"
    assert address.rpartition("/")[2] in texts[1]
    assert (weights_address.local_path(address) / "backbone.keras").read_bytes() == network
    opened = ss.from_pretrained(files[f"{stem}.keras"])
    assert opened.augmentation == AUGMENTATIONS["cifar"] and opened.card["license"] == "apache-2.0"


@pytest.mark.parametrize("argument", ["small", "small=", "Big=runs/x", "../x=runs/x"])
def test_names_are_plain(argument, tmp_path, capsys):
    with pytest.raises(SystemExit):
        release_weights.main([f"--out={tmp_path}", argument])
    assert "must be NAME=WORKDIR" in capsys.readouterr().err


def test_a_missing_run_is_one_line(tmp_path, capsys):
    assert release_weights.main([f"--out={tmp_path}", f"small={tmp_path}/none"]) == 2
    assert capsys.readouterr().err.startswith(f"release_weights: weights={tmp_path}/none: no such file")


def release(dist):
    return subprocess.run(
        ["bash", ROOT / "scripts" / "release.sh"], capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable, "DIST": str(dist)},
    )  # fmt: skip


def test_a_folder_with_files_is_not_written_to(tmp_path):
    (tmp_path / "earlier.whl").touch()
    done = release(tmp_path)
    assert (
        done.returncode == 2 and done.stderr == f"{tmp_path} holds files: remove them, or pass DIST=FOLDER\n"
    )


@pytest.mark.slow
def test_two_builds_have_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        assert release(tmp_path / name).returncode == 0
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("one", "two")]
    assert sums[0] == sums[1] and len(sums[0].splitlines()) == 2
    for line in sums[0].splitlines():
        digest, name = line.split()
        assert hashlib.sha256((tmp_path / "one" / name).read_bytes()).hexdigest() == digest
