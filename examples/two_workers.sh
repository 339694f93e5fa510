#!/usr/bin/env bash
# Two workers on one machine, one of which is killed: bash examples/two_workers.sh [FOLDER] [FLAGS …]
#
# What you learn: how several processes train one network (scripts/launch_local.sh; on several machines the same
# command is started on each, docs/many-machines.md), and that a run which lost a worker is continued by its own
# command and ends with the same weights, bit for bit, as one that was left alone.
#
# It trains three times on scikit-learn's digits into FOLDER (by default runs/two_workers), which takes some
# minutes on two cores, and prints the exit statuses and the digests of both ends. FLAGS are flags of pretrain.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=runs/two_workers
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
  folder=$1
  shift
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
flags=(--data=digits --backbone=resnet10 --stem=cifar --width=0.125 --d=64 --predictor_hidden=32 --projector_layers=2
  --batch_size=64 --base_lr=0.4 --epochs=2 --log_every=5 --save_minutes=0 "$@")

train() { bash "$root/scripts/launch_local.sh" 2 -- "${flags[@]}" "--workdir=$folder/$1"; }

# worker NAME NUMBER: the process number of a worker of the run in $folder/NAME
worker() {
  local process
  for process in /proc/[0-9]*; do
    if grep -qsaF -- "--workdir=$folder/$1" "$process/cmdline" && grep -qsaF "\"index\": $2}" "$process/environ"; then
      echo "${process#/proc/}"
      return
    fi
  done
}

# digest NAME: the newest checkpoint and its SHA-256
digest() {
  local newest
  newest=$(find "$folder/$1/checkpoints" -mindepth 1 -maxdepth 1 -name 'step-*' | sort | tail -n 1)
  echo "$(basename "$newest"), $(sha256sum < "$newest/state.data-00000-of-00001" | cut -c 1-16)"
}

echo "1. two workers, left alone"
train alone

echo "2. the same run, whose worker 1 is killed after the first records"
train killed &
launched=$!
until grep -qs '"loss"' "$folder/killed/metrics.jsonl" || ! kill -0 $launched 2>/dev/null; do sleep 0.1; done
if victim=$(worker killed 1) && [ -n "$victim" ]; then
  kill -KILL "$victim"
fi
status=0
wait $launched || status=$?
echo "ended with status $status (75 and 137: rerun the same command)"

while [ "$status" = 75 ] || [ "$status" = 137 ]; do # on a busy machine a worker may be lost again
  echo "3. the same command again"
  status=0
  train killed || status=$?
done
[ "$status" = 0 ] || exit "$status"

echo "left alone            $(digest alone)"
echo "killed and continued  $(digest killed)"
[ "$(digest alone)" = "$(digest killed)" ] || { echo "the ends differ"; exit 1; }
