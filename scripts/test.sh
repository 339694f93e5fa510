#!/usr/bin/env bash
# The tests, on a fresh checkout: sets up .venv, then runs ruff and pytest in two processes.
# PARITY=0 leaves PyTorch out. Arguments go to pytest: scripts/test.sh -m slow, scripts/test.sh -n 0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

if [ "${PARITY:-1}" = 1 ]; then set_up "[dev,onnx,parquet,viz,convert,parity]"; else set_up "[dev,onnx,parquet,viz,convert]"; fi

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
.venv/bin/ruff check .
exec .venv/bin/python -m pytest -q -n 2 --dist loadfile "$@"
