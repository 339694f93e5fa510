"""The documentation site builds without a warning, has every page, and names the whole Python interface."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import yaml

import simsiam_tf as ss

ROOT = Path(__file__).parents[1]


def navigation(entries):
    """The files of a nav of mkdocs.yml."""
    for entry in entries:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else navigation(value)


def test_every_page_is_in_the_navigation_once():
    text = re.sub(r"!!\S+", "", (ROOT / "mkdocs.yml").read_text())
    pages = [*navigation(yaml.safe_load(text)["nav"])]
    assert sorted(pages) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "api" / "index.html").read_text()
    assert 'id="simsiam_tf.methods.losses.negative_cosine"' in page and "D(p, z) of Eq. 1" in page
    architecture = (tmp_path / "architecture" / "index.html").read_text()
    assert "/blob/main/CONTRIBUTING.md" in architecture
    served = "".join(path.read_text() for path in tmp_path.glob("*/index.html"))
    assert "fonts.googleapis" not in served  # readers ask no other server


def test_on_github_the_reference_is_words_and_links():
    """GitHub hides comments, and shows `:::` as it is; links lead to the files that define the names."""
    text = (ROOT / "docs" / "api.md").read_text()
    shown = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    assert ":::" not in shown and "options:" not in shown
    groups = list(zip(text.split("\n## ")[1:], shown.split("\n## ")[1:], strict=True))
    for whole, group in groups:
        paths = re.findall(r"^::: ([\w.]+)$", whole, re.M)
        links = re.findall(r"\[`(\w+)`\]\(\.\./([\w/]+)\.py\)", group)
        places = [(name, file.removesuffix("/__init__").replace("/", ".")) for name, file in links]
        assert [f"{module}.{name}" for name, module in places] == paths, group
        assert all((ROOT / f"{file}.py").is_file() for _, file in links)
        assert len(group.splitlines()[2]) > 20  # words


def test_the_reference_has_every_public_name():
    shown = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(), re.M)
    assert len(shown) == len(set(shown))
    for path in shown:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    names = {path.rpartition(".")[2] for path in shown}
    for module in ss._MODULES:
        public = getattr(getattr(ss, module), "__all__", ())
        assert set(public) - names <= {"pretraining", "supervised"}, module
    assert set(ss._NAMES) <= names
