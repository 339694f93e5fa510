"""The wheel and the sdist, built once: all files are in them, and an installation needs no checkout."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import simsiam_tf as ss

pytest.importorskip("build", reason="needs build: pip install 'simsiam-tf[dev]'")

ROOT = Path(__file__).parents[1]
MADE = ("__pycache__", "build", "dist")  # folders that no package holds


def files_below(folder):
    """Paths of the files in a folder and the folders within, relative to it."""
    found = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in MADE]
        found |= {os.path.relpath(os.path.join(place, name), folder) for name in names}
    return found


def build(source, *options):
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        f"--outdir={source}/dist",
        *options,
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(sdist, wheel that was built from it, wheel of the checkout), of copies: nothing is left here."""
    copies = [tmp_path_factory.mktemp(name) / "source" for name in ("through_sdist", "direct")]
    for copy in copies:
        for folder in ("simsiam_tf", "flags"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*MADE))
        for path in ROOT.iterdir():
            if path.is_file() and path.name != ".git":
                shutil.copy(path, copy)
    build(copies[0])
    build(copies[1], "--wheel")
    (sdist,) = copies[0].glob("dist/*.tar.gz")
    return sdist, *(next(copy.glob("dist/*.whl")) for copy in copies)


@pytest.fixture(scope="module")
def metadata(built):
    """The wheel's metadata, as pip reads it."""
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Runs Python in an empty folder with nothing but the installed package before the libraries."""
    target, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        f"--target={target}",
        str(built[1]),
    ]
    subprocess.run(command, check=True)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(target)},
            capture_output=True, text=True,
        )  # fmt: skip

    return target, run


def test_the_wheel_holds_every_file_of_the_package_and_no_other(built):
    flags = {f"simsiam_tf/flagfiles/flags/{name}" for name in files_below(ROOT / "flags")}
    expected = flags | {f"simsiam_tf/{name}" for name in files_below(ROOT / "simsiam_tf")}
    for kind in (".cfg", ".j2", ".css", ".js", "py.typed"):
        assert any(name.endswith(kind) for name in expected)
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == expected
        for name in names:
            place = name.removeprefix("simsiam_tf/flagfiles/")
            assert wheel.read(name) == (ROOT / place).read_bytes()


def test_the_sdist_holds_what_a_wheel_is_built_from(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    sources = {
        f"{folder}/{name}" for folder in ("simsiam_tf", "flags") for name in files_below(ROOT / folder)
    }
    documents = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "setup.py"}
    assert sources | documents <= names


def test_the_sdist_builds_the_wheel_of_the_checkout(built):
    contents = []
    for path in built[1:]:
        with zipfile.ZipFile(path) as wheel:
            contents.append({name: wheel.read(name) for name in wheel.namelist()})
    assert contents[0] == contents[1] and built[1].name == built[2].name


def test_one_version(built, metadata):
    assert metadata["Version"] == ss.__version__
    assert built[1].name == f"simsiam_tf-{ss.__version__}-py3-none-any.whl"
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", citation, re.M) == [ss.__version__]
    (day,) = re.findall(r"^date-released: (.+)$", citation, re.M)
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (.+)$", changes, re.M)[:2] == ["Unreleased", f"{ss.__version__} ({day})"]
    assert (ROOT / "docs" / f"release-{ss.__version__}.md").exists()
    for path in ("Dockerfile", "scripts/launch/kubernetes.yaml"):
        assert set(re.findall(r"simsiam-tf:(\d[\d.]*\d)", (ROOT / path).read_text())) == {ss.__version__}


def test_metadata(metadata):
    assert metadata["Name"] == "simsiam-tf" and metadata["Author"] == "The simsiam_tf authors"
    assert "Apache-2.0" in (metadata["License-Expression"] or metadata["License"])
    (address,) = re.findall(r'^repository-code: "(.+)"$', (ROOT / "CITATION.cff").read_text(), re.M)
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert {*urls} == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(address) for url in urls.values())
    for url in urls.values():  # their paths exist in the repository
        if "/main/" in url:
            assert (ROOT / url.partition("/main/")[2]).exists(), url


def test_commands_run_where_there_is_no_checkout(installed):
    target, run = installed
    place = run("-c", "import simsiam_tf; print(simsiam_tf.__file__)").stdout.strip()
    assert place == str(target / "simsiam_tf" / "__init__.py")
    listed = run("-m", "simsiam_tf", "--help")
    assert listed.returncode == 0 and "python -m simsiam_tf.pretrain" in listed.stdout, listed.stderr
    asked = run("-m", "simsiam_tf.pretrain", "--flagfile=flags/quickstart.cfg", "--help")
    assert asked.returncode == 0 and "--flagfile" in asked.stdout, asked.stderr
    script = re.sub("^#!.*", "", (target / "bin" / "simsiam-neighbours").read_text())
    assert "simsiam_tf.neighbours" in script and len(list((target / "bin").iterdir())) >= 13


def test_a_command_can_follow_the_package(installed):
    """`python -m simsiam_tf pretrain` is how a container's entry runs commands."""
    _, run = installed
    for options in (["--help"], ["--no_such_flag"]):
        one, other = run("-m", "simsiam_tf", "pretrain", *options), run("-m", "simsiam_tf.pretrain", *options)
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    unknown = run("-m", "simsiam_tf", "pretrian")
    assert unknown.returncode == 2 and unknown.stderr.startswith("simsiam_tf: 'pretrian': no such command.")


def test_flagfiles_are_found_where_there_is_no_checkout(installed):
    code = """
from simsiam_tf import config
from simsiam_tf.command_line import cli
print(cli.parse(config.PretrainConfig, ["--flagfile=flags/quickstart.cfg"]).data)
"""
    done = installed[1]("-c", code)
    assert done.stdout == "fashion_mnist\n", done.stderr
