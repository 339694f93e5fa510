# Functions for the other scripts, which source this file: they make a virtual environment with the package.
# shellcheck shell=bash

fail() { echo "$*" >&2; exit 1; }

# python_for_venv: prints a Python 3.11, 3.12 or 3.13 that can make virtual environments.
python_for_venv() {
  local p
  for p in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$p"; return
    fi
  done
  return 1
}

# set_up EXTRAS: makes .venv and installs the package with EXTRAS ("[dev,onnx]" or ""), unless that is done already.
set_up() {
  local extras=$1 stamp wanted python
  if [ ! -x .venv/bin/python ]; then
    if ! python=$(python_for_venv); then
      if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing python3 and python3-venv"
        apt-get update -q >/dev/null && apt-get install -y -q python3 python3-venv >/dev/null
      fi
      python=$(python_for_venv) || fail "needs Python 3.11, 3.12 or 3.13 with venv: sudo apt-get install python3 python3-venv, or set PYTHON=/path/to/python3.12"
    fi
    echo "making .venv with $($python --version)"
    "$python" -m venv .venv || fail "could not make .venv; remove it and try again"
  fi
  stamp=.venv/installed-$(echo "$extras" | tr -c 'a-z\n' '-')
  wanted=$(cat setup.py pyproject.toml | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing simsiam_tf$extras into .venv (TensorFlow is large: some minutes)"
    .venv/bin/pip install --quiet --disable-pip-version-check -e ".$extras" || fail "installation failed; see above"
    echo "$wanted" > "$stamp"
  fi
}
