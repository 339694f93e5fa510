#!/usr/bin/env bash
# The files of a release, in dist/: sdist, wheel, weights, and SHA256SUMS.
#   bash scripts/release.sh [NAME=WORKDIR …]
# builds what is committed, not what lies in the working tree, and twice gives the same bytes with the same Python,
# setuptools and zlib. Each NAME=WORKDIR adds the backbone of a finished run: NAME-DIGEST.keras, its card as .json
# and .md (scripts/release_weights.py). PYTHON takes another environment than .venv, DIST another folder than dist.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || { echo "no .venv: run bash scripts/test.sh before" >&2; exit 2; }
dist=$(realpath -m "${DIST:-$root/dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

if [ -n "$(ls -A "$dist" 2>/dev/null)" ]; then
  echo "$dist holds files: remove them, or pass DIST=FOLDER" >&2
  exit 2
fi
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
mkdir "$work/source" "$work/sdist"
git -C "$root" archive HEAD | tar -x --no-same-permissions -C "$work/source"
(cd "$work/source" && "$python" -m build --no-isolation --sdist --outdir "$work" . >"$work/log" 2>&1) ||
  { cat "$work/log" >&2; exit 1; }

# The same archive without the times and owners of this machine; the wheel is built from it.
sdist=$(basename "$work"/*.tar.gz)
tar -xzf "$work/$sdist" -C "$work/sdist" --no-same-owner
mkdir -p "$dist"
tar -c --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
  --mode=u=rwX,go=rX -C "$work/sdist" "${sdist%.tar.gz}" | gzip -9n > "$dist/$sdist"
(cd "$work/sdist/${sdist%.tar.gz}" && "$python" -m build --no-isolation --wheel --outdir "$dist" . >"$work/log" 2>&1) ||
  { cat "$work/log" >&2; exit 1; }

if [ $# -gt 0 ]; then
  (PYTHONPATH=$root "$python" -P -m scripts.release_weights --out="$dist" "$@")
fi
(cd "$dist" && sha256sum -- * > "$work/sums" && mv "$work/sums" SHA256SUMS && cat SHA256SUMS)
