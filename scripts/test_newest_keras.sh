#!/usr/bin/env bash
# A few tests under the newest Keras that pip offers, pre-releases and keras-nightly included, with .venv's other
# packages. Needs .venv, which scripts/test.sh makes; PYTHON=/path/to/python takes another environment.
# Where .venv's Keras is the newest, or nothing can be fetched, the script says so and ends with status 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || { echo "no .venv: run bash scripts/test.sh before" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pip() { "$python" -m pip --disable-pip-version-check --quiet "$@" 2>"$work/pip.log"; }
for package in keras keras-nightly; do
  pip install --pre --upgrade --no-deps --target="$work/$package" "$package" || echo "could not be fetched: $package"
done
newest=$("$python" - "$work" <<'PY'
import importlib.metadata, pathlib, sys
from packaging.version import Version

found = [(Version(importlib.metadata.version("keras")), "")]
for folder in ("keras", "keras-nightly"):
    for info in importlib.metadata.distributions(path=[str(pathlib.Path(sys.argv[1], folder))]):
        found.append((Version(info.version), folder))
version, folder = max(found, key=lambda pair: pair[0])
print(folder or f"installed {version}")
PY
)
if [[ $newest == installed* ]]; then
  echo "the newest Keras that could be fetched is the one that is $newest: nothing to test"
  exit 0
fi

export PYTHONPATH="$work/$newest:$PWD" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
"$python" -c 'import keras; print(f"Keras {keras.__version__}, from {keras.__file__}")'
"$python" -m simsiam_tf.pretrain --flagfile=flags/quickstart.cfg --data=digits --epochs=2 --workdir="$work/run"
"$python" -m simsiam_tf.export --weights="$work/run" --format=keras
"$python" -m simsiam_tf.embed --weights="$work/run/export/backbone.keras" --data=digits --out="$work/digits.npz"
"$python" -m pytest -q -n 0 -p no:cacheprovider tests/data/test_augment_layers.py tests/pretrained/test_backbone_file.py "$@"
