#!/usr/bin/env bash
# The tests, on a fresh checkout: sets up .venv, then runs ruff, pyright, and pytest in two processes.
# --fast, as the first argument: only tests that start no process and train nothing, in two minutes.
# PARITY=0 leaves PyTorch out. Other arguments go to pytest: scripts/test.sh -m slow, scripts/test.sh -n 0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

if [ "${PARITY:-1}" = 1 ]; then set_up "[dev,onnx,parquet,viz,convert,parity]"; else set_up "[dev,onnx,parquet,viz,convert]"; fi

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
if .venv/bin/pyright --version >/dev/null 2>&1; then
  .venv/bin/pyright --pythonpath .venv/bin/python --warnings | tail -n 1
else
  echo "pyright cannot run here (it fetches itself on its first use): types are not checked"
fi
if [ "${1:-}" = --fast ]; then
  shift
  set -- -m "not slow and not processes and not trains" "$@"
fi
exec .venv/bin/python -m pytest -q -n 2 --dist loadfile "$@"
