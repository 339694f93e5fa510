"""scripts/quickstart.sh with stand-ins for apt, pip and Python: as root and not, again, and offline."""

import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    "bash", "cat", "chmod", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sha256sum", "tail", "touch",
    "tr",
)  # fmt: skip
STAND_INS = {  # each notes its call, and ends with the status that a variable gives
    "apt-get": """
[ "$1" = update ] && exit "${UPDATE:-0}"
if [ "${APT:-0}" = 0 ]; then case "$*" in *python3-venv*) touch "$STATE/venv";; esac; fi
exit "${APT:-0}" """,
    "id": 'echo "${USER_ID:-0}"',
    "nproc": "echo 4",
    "python3": """
case "$1" in
  -c) [ -e "$STATE/venv" ]; exit;;
  --version) echo "Python 3.13.5"; exit;;
esac
mkdir -p .venv/bin && cp_stand_in python && [ "${VENV:-0}" = 0 ] && cp_stand_in pip""",
}
MAKE = """
cp_stand_in() { printf '#!/bin/bash\\necho "%s $*" >> "$STATE/calls"\\nexit "${%s:-0}"\\n' "$1" "${1^^}" \
> .venv/bin/"$1"; chmod +x .venv/bin/"$1"; }
"""


@pytest.fixture
def quickstart(tmp_path):
    """run(**variables) → its status, stdout, stderr, and the calls that use the network or train."""
    checkout, bin, state = (tmp_path / name for name in ("checkout", "bin", "state"))
    for folder in (checkout / "scripts", bin, state):
        folder.mkdir(parents=True)
    for name in ("scripts/quickstart.sh", "scripts/common.sh", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    for name in TOOLS:
        (bin / name).symlink_to(shutil.which(name))
    for name, lines in STAND_INS.items():
        note = f'echo "{name} $*" >> "$STATE/calls"\n' if name == "apt-get" else ""
        (bin / name).write_text(f"#!/bin/bash\n{note}{MAKE}{lines}\n")
        (bin / name).chmod(0o755)
    (state / "venv").touch()

    def run(**variables):
        (state / "calls").write_text("")
        env = {
            "PATH": str(bin),
            "STATE": str(state),
            "HOME": str(tmp_path),
            "FASHION_MNIST_DIR": "/none",
            **variables,
        }
        done = subprocess.run(
            ["bash", checkout / "scripts" / "quickstart.sh", "--epochs=1"], env=env, cwd="/",
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        calls = (state / "calls").read_text().splitlines()
        network = [" ".join(call.split()[:2]) for call in calls if not call.startswith("python ")]
        training = [call for call in calls if call.startswith("python -m simsiam_tf.pretrain")]
        return types.SimpleNamespace(status=done.returncode, out=done.stdout, err=done.stderr,
                                     network=network, training=training)  # fmt: skip

    return types.SimpleNamespace(run=run, checkout=checkout, state=state, home=tmp_path)


TRAINING = ["python -m simsiam_tf.pretrain --flagfile=flags/quickstart.cfg --epochs=1"]


def keep_tfds(quickstart):
    kept = quickstart.home / "tensorflow_datasets" / "fashion_mnist" / "3.0.1"
    kept.mkdir(parents=True)
    (kept / "dataset_info.json").touch()


def test_as_root_it_installs_and_trains_and_the_second_time_only_trains(quickstart, tmp_path):
    first = quickstart.run()
    assert (first.status, first.training) == (0, TRAINING), first.err
    assert first.network == ["pip install", "apt-get install"]
    (tmp_path / "fashion").mkdir()
    again = quickstart.run(FASHION_MNIST_DIR=str(tmp_path / "fashion"), PIP="1", APT="1")
    assert (again.status, again.training, again.network) == (0, TRAINING, [])


def test_not_as_root_nothing_is_installed_on_the_system(quickstart):
    done = quickstart.run(USER_ID="1000")
    assert (done.status, done.training, done.network) == (0, TRAINING, ["pip install"])


def test_where_apt_lacks_the_set_tfds_is_left_to_download_it_once(quickstart):
    done = quickstart.run(APT="100", UPDATE="100")
    assert (done.status, done.training) == (0, TRAINING)
    assert done.network == ["pip install", "apt-get install", "apt-get update", "apt-get install"]
    assert "TFDS will download Fashion-MNIST instead" in done.out
    keep_tfds(quickstart)
    again = quickstart.run(APT="100", UPDATE="100", PIP="1")  # without a network
    assert (again.status, again.training, again.network) == (0, TRAINING, [])


@pytest.mark.parametrize("update", ["0", "100"])
def test_a_missing_venv_is_installed_as_root(quickstart, update):
    (quickstart.state / "venv").unlink()
    done = quickstart.run(UPDATE=update)
    assert (done.status, done.training) == (0, TRAINING) and done.network[0] == "apt-get install"


@pytest.mark.parametrize("variables", [{"USER_ID": "1000"}, {"APT": "100"}, {"APT": "100", "UPDATE": "100"}])
def test_a_missing_venv_that_cannot_be_installed_is_one_line(quickstart, variables):
    (quickstart.state / "venv").unlink()
    done = quickstart.run(**variables)
    assert done.status == 1 and done.training == []
    assert done.err.splitlines()[-1].startswith(
        "needs Python 3.11, 3.12 or 3.13 with venv: sudo apt-get install"
    )


def test_an_installation_that_failed_is_tried_again(quickstart):
    failed = quickstart.run(PIP="1", USER_ID="1000")
    assert failed.status == 1 and failed.training == []
    assert failed.err.splitlines()[-1].startswith("installation failed")
    again = quickstart.run(USER_ID="1000")
    assert (again.status, again.training, again.network) == (0, TRAINING, ["pip install"])


def test_a_half_made_environment_is_made_again(quickstart):
    failed = quickstart.run(VENV="1", USER_ID="1000")
    assert failed.status == 1 and "could not make .venv" in failed.err
    assert (quickstart.checkout / ".venv" / "bin" / "python").exists()
    assert quickstart.run(USER_ID="1000").training == TRAINING


def test_what_the_tests_installed_is_enough(quickstart):
    """`scripts/test.sh` installs the package with extras: without a network, the quickstart then runs."""
    quickstart.run(USER_ID="1000")
    (stamp,) = (quickstart.checkout / ".venv").glob("installed-*")
    stamp.rename(stamp.with_name("installed--dev-onnx-"))
    again = quickstart.run(USER_ID="1000", PIP="1")
    assert (again.status, again.training, again.network) == (0, TRAINING, [])
    (quickstart.checkout / "setup.py").write_text("# another")
    assert quickstart.run(USER_ID="1000").network == ["pip install"]


SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), ROOT / ".ci" / "run"])


def tool(name):
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: pip install 'simsiam-tf[dev]'")
    return path


def test_shellcheck_finds_nothing():
    done = subprocess.run([tool("shellcheck"), "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_nothing():
    done = subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_container_copies_what_exists_and_docker_is_given():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    given = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [place for line in lines if line.startswith("COPY ") for place in line.split()[1:-1]]
    assert sorted(copied) == sorted(given) and all((ROOT / place).exists() for place in copied)
    bases = {line.split()[1] for line in lines if line.startswith("FROM ")}
    (base,) = bases
    assert base.startswith("python:3.12.") and "-slim-" in base  # one whole version, on one Debian
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    assert 'ENTRYPOINT ["python", "-m", "simsiam_tf"]' in lines
