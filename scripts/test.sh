#!/usr/bin/env bash
# The tests, on a fresh checkout: sets up .venv, then runs ruff, pyright, and pytest in two processes.
# --fast, as the first argument: a choice of quick tests, in two minutes on two cores.
# PARITY=0 does not install PyTorch; SETUP=0 takes .venv as it is. Other arguments go to pytest: -m slow, -n 0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

extras=dev,docs,faiss,onnx,parquet,viz,convert,tiff,heif,jxl,remote,hf,hub,kerashub,coco,ray
[ "${PARITY:-1}" = 1 ] && extras=$extras,parity
[ "${SETUP:-1}" = 1 ] && set_up "[$extras]"

fast=(
  tests/config tests/optimizers tests/test_flagfiles.py tests/test_readme.py tests/evaluate/test_diagnosis.py
  tests/data/test_contents.py tests/data/test_draws.py tests/data/test_folder.py tests/data/test_pipeline.py
  tests/data/test_sources.py tests/evaluate/test_supervised_model.py
  tests/features/test_changed_files.py tests/features/test_extraction.py tests/features/test_knn.py
  tests/loop/test_checkpoint_policy.py tests/loop/test_checkpoints.py
  tests/methods/test_losses.py tests/methods/test_metrics.py tests/methods/test_swav.py
  tests/nets/test_tiny_maps.py tests/nets/test_winograd.py tests/scripts/test_claims.py
  tests/runtime/test_atomic_files.py tests/runtime/test_display_text.py tests/runtime/test_signals.py
)

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
if .venv/bin/pyright --version >/dev/null 2>&1; then
  .venv/bin/pyright --pythonpath .venv/bin/python
else
  echo "pyright cannot run here (it fetches itself on its first use): types are not checked"
fi
if [ "${1:-}" = --fast ]; then
  shift
  set -- "${fast[@]}" "$@"
fi
exec .venv/bin/python -m pytest -q -n 2 --dist loadfile "$@"
