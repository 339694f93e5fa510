"""Every command has a script, and versions of Python and Keras are bounded alike wherever they are named."""

import ast
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def promised():
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", given.update)
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def commands():
    """Modules of the package's root that are run as `python -m simsiam_tf.NAME`."""
    for path in (ROOT / "simsiam_tf").glob("*.py"):
        if path.stem != "__main__" and 'if __name__ == "__main__"' in path.read_text():
            yield path.stem


def test_the_package_lists_its_commands_without_tensorflow():
    code = "import runpy, sys; sys.argv[1:] = []\n"
    code += "try: runpy.run_module('simsiam_tf', run_name='__main__')\n"
    code += "except SystemExit as ended: sys.exit(ended.code or 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  python -m simsiam_tf\.(\w+) +\S.*$", done.stdout, re.M)
    assert sorted(listed) == sorted(commands())


def test_types_are_promised(promised):
    assert "py.typed" in promised["package_data"]["simsiam_tf"]
    assert (ROOT / "simsiam_tf" / "py.typed").exists()


def test_a_checkout_is_installed_by_its_path_not_by_an_import_hook(promised):
    """A hook comes after the folders of sys.path, in which the checkout itself may lie."""
    assert promised["options"]["editable_wheel"]["mode"] == "compat"


def test_every_command_has_a_script(promised):
    scripts = dict(line.split("=") for line in promised["entry_points"]["console_scripts"])
    expected = {f"simsiam-{name.replace('_', '-')}": f"simsiam_tf.{name}:main" for name in commands()}
    assert scripts == expected and "simsiam-pretrain" in scripts
    for module in commands():
        tree = ast.parse((ROOT / "simsiam_tf" / f"{module}.py").read_text())
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def takes(version, tmp_path):
    """Whether the scripts make a virtual environment with a Python of this version, and no other at hand."""
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").write_text(
        f"#!{sys.executable}\nimport sys\nsys.modules.update(venv=sys, ensurepip=sys)\n"
        f"sys.version_info = {version!r}\nexec(sys.argv[2])\n"
    )
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    line = f'. scripts/common.sh; PYTHON={tmp_path}/python PATH="{tmp_path}:$PATH" python_for_venv'
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("minor", range(10, 16))
def test_scripts_and_package_take_the_same_versions_of_python(promised, minor, tmp_path):
    allowed = SpecifierSet(promised["python_requires"]).contains(f"3.{minor}.1")
    named = f"Programming Language :: Python :: 3.{minor}" in promised["classifiers"]
    assert allowed == named == (11 <= minor <= 13) == takes((3, minor, 1), tmp_path)


def test_the_newest_keras_that_was_tried_is_allowed_and_the_next_is_not(promised):
    """keras-cv takes private parts of Keras, which any release may move."""
    found = {r.name: r.specifier for r in map(Requirement, promised["install_requires"])}
    allowed = [v for v in ("3.15.0", "3.15.1", "3.16.0", "3.16.4", "3.17.0", "4.0.0") if v in found["keras"]]
    assert allowed == ["3.15.1", "3.16.0", "3.16.4"]
    assert "3.10.0" not in found["h5py"]  # TensorFlow 2.19 asks for 3.11


def test_readme_names_the_versions(promised):
    minors = [c.rpartition(" ")[2] for c in promised["classifiers"] if re.search(r" 3\.\d+$", c)]
    assert f"Python {', '.join(minors[:-1])} or {minors[-1]}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("main", "newest"), [(0, 0), (0, 1), (1, 0), (5, 1)])
def test_a_newer_keras_that_breaks_is_a_notice_and_the_tests_decide(main, newest, tmp_path):
    for name in (".ci", "scripts"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    closing = f"{main} failed, 9 passed in 1.00s"
    for name, status, said in (("test", main, closing), ("test_newest_keras", newest, "1 failed, 2 passed")):
        (tmp_path / "scripts" / f"{name}.sh").write_text(f"echo '{said}'\nexit {status}\n")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, cwd="/")
    said = done.stdout.splitlines()
    assert (done.returncode, said[-1]) == (main, closing)
    assert ("newest Keras: 1 failed, 2 passed" in said) == (main == 0)
    assert any(line.startswith("NOTICE") for line in said) == (main == 0 and newest == 1)
