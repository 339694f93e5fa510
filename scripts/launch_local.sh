#!/usr/bin/env bash
# Several workers of one run on this machine: scripts/launch_local.sh N [pretrain|linear_eval|finetune] -- FLAGS
#   scripts/launch_local.sh 2 -- --flagfile=flags/quickstart.cfg --workdir=runs/two
# Every line begins with the number of its worker. Ends when all workers have ended, with the largest of their
# exit statuses, where 75 ("rerun me") counts least but for 0: the others end with it when one worker fails.
# Workers trust whoever reaches their ports. Here they serve 127.0.0.1 alone (on Linux). On several machines a
# firewall must keep others out: docs/many-machines.md.
set -euo pipefail

usage() { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }
[ $# -ge 2 ] && [[ $1 =~ ^[1-9][0-9]*$ ]] || usage
count=$1 module=pretrain
shift
if [ "$1" != -- ]; then
  module=$1
  shift
fi
[[ $module =~ ^(pretrain|linear_eval|finetune)$ ]] && [ "${1:-}" = -- ] || usage
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
  (cd "$root" && . scripts/common.sh && set_up "")
fi
python=${PYTHON:-$root/.venv/bin/python}

hosts=$("$python" - "$count" <<'PY'
import json, socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(json.dumps([f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]))
PY
)

pids=()
# shellcheck disable=SC2329  # trap invokes it
stop() { kill -TERM "${pids[@]}" 2>/dev/null || true; }
trap stop TERM INT
for ((i = 0; i < count; i++)); do
  TF_CONFIG="{\"cluster\": {\"worker\": $hosts}, \"task\": {\"type\": \"worker\", \"index\": $i}}" \
    "$python" -m "simsiam_tf.$module" --strategy=multi_worker "$@" \
    > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  pids+=($!)
done

status=0
for pid in "${pids[@]}"; do
  while true; do # a signal ends `wait` early
    code=0
    wait "$pid" || code=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  if [ "$code" != 0 ] && { [ "$status" = 0 ] || [ "$status" = 75 ] || { [ "$code" != 75 ] && [ "$code" -gt "$status" ]; }; }; then
    status=$code
  fi
done
exit "$status"
