# Functions for the other scripts, which source this file: they make a virtual environment with the package.
# shellcheck shell=bash

fail() { echo "$*" >&2; exit 1; }

# python_for_venv: prints a Python 3.11, 3.12 or 3.13 that can make virtual environments.
python_for_venv() {
  local p
  for p in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
    if "$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$p"; return
    fi
  done
  return 1
}

# apt_install PACKAGE …: installs Debian packages, after an update if it must; its output appears if that fails.
apt_install() {
  local log status=0
  log=$(mktemp)
  { DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" ||
    { apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@"; }; } </dev/null >"$log" 2>&1 || status=$?
  [ "$status" = 0 ] || tail -n 3 "$log" >&2
  rm -f "$log"
  return "$status"
}

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# set_up EXTRAS: makes .venv and installs the package with EXTRAS ("[dev,onnx]" or ""), unless that is done already.
set_up() {
  local extras=$1 stamp wanted python
  if [ ! -x .venv/bin/pip ]; then  # which appears last: an interrupted .venv is made again
    if ! python=$(python_for_venv); then
      if can_apt; then
        echo "installing python3 and python3-venv"
        apt_install python3 python3-venv || true
      fi
      python=$(python_for_venv) || fail "needs Python 3.11, 3.12 or 3.13 with venv: sudo apt-get install python3 python3-venv, or set PYTHON=/path/to/python3.12"
    fi
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv || fail "could not make .venv; remove it and try again"
  fi
  stamp=.venv/installed-$(echo "$extras" | tr -c 'a-z\n' '-')
  wanted=$(cat setup.py pyproject.toml | sha256sum)
  if [ -z "$extras" ] && grep -qsxF "$wanted" .venv/installed-*; then
    return  # any extras include the package itself
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing simsiam_tf$extras into .venv (TensorFlow is large: some minutes)"
    .venv/bin/pip install --quiet --no-compile --disable-pip-version-check -e ".$extras" || fail "installation failed; see above. It needs a network"
    echo "$wanted" > "$stamp"
  fi
}
