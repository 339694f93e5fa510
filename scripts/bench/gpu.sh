#!/usr/bin/env bash
# Measures all of docs/gpu.md's list on the GPU of this machine in ten minutes, and writes the page's tables.
#   bash scripts/bench/gpu.sh [OUT] [--minutes=10] [--list]       OUT: folder of the figures, runs/gpu by default
#   bash scripts/bench/gpu.sh runs/gpu-tiny --device=cpu --tiny   the same list at tiny sizes, to try it without a GPU
# Finished stages of OUT are not repeated: rerun it for those that failed or that the time was too short for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
exec "$python" scripts/bench/gpu_stages.py "$@"
