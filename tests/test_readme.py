"""The README's notebook runs, and what it names exists."""

import re
from pathlib import Path

from simsiam_tf import config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_notebook_runs_and_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {}
    exec(code, names)  # noqa: S102
    assert names["model"].history.history["loss"][-1] < names["model"].history.history["loss"][0] - 0.05
    assert {"knn20", "knn200"} <= set(names["model"].history.history)
    assert "knn20" in capsys.readouterr().out


def test_flags_files_and_names_exist():
    flags = set(re.findall(r"--(\w+)", "\n".join(re.findall(r"`[^`]+`", README))))
    assert flags - set(config.kinds(config.PretrainConfig)) <= {
        "flagfile",
        "help",
        "role",
        "port",
        "work_dir",
        "dispatcher",
    }
    for path in re.findall(r"`((?:scripts|tests|flags)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
    rows = [line for line in README.splitlines() if line.startswith("| ") and ".py`: `" in line]
    assert len(rows) > 8
    for row in rows:
        for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`[^`]+`(?:, )?)+)", row):
            source = (ROOT / "simsiam_tf" / path).read_text()
            for name in re.findall(r"`(\w+)", names.replace("SimSiam.", "")):
                assert re.search(rf"\b{name}\b", source), (path, name)
        for pattern in re.findall(r"`((?:paper|imagenet|cifar10)/[\w*]+)`", row):
            assert list((ROOT / "flags").glob(f"{pattern}.cfg")), pattern
