#!/usr/bin/env bash
# Makes a labelled set of pictures from packages: bash scripts/sets.sh NAME FOLDER [--downloads=FOLDER]
# Without arguments, or with --help, it lists the sets. Nothing is installed on the system, and no root is needed.
# Rerun it at will: a finished set is not made again. PYTHON takes another environment than .venv.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/common.sh"

case "${1:-}" in
  "" | -h | --help) python=${PYTHON:-$(python_for_venv)} || fail "needs Python 3.11, 3.12 or 3.13, or PYTHON=/path/to/python3.12" ;;
  *)
    if [ -z "${PYTHON:-}" ]; then
      (cd "$root" && set_up "")
    fi
    python=${PYTHON:-$root/.venv/bin/python}
    ;;
esac
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -P -m scripts.sets "$@"
