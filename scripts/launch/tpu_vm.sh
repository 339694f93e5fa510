#!/usr/bin/env bash
# A run on a Cloud TPU VM: scripts/launch/tpu_vm.sh NAME ZONE -- FLAGS of simsiam_tf.pretrain
#   TYPE=v4-8 scripts/launch/tpu_vm.sh simsiam us-central2-b -- --flagfile=flags/cifar10/simsiam.cfg
# THIS HAS NOT BEEN RUN: neither the script nor simsiam_tf on any TPU. One host only (v4-8, v5litepod-8):
# --strategy=tpu uses the chips of its own host. Creates the TPU unless one of that name exists, so the same
# command continues a run. The TPU costs money until you delete it.
set -euo pipefail

usage() { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
if [ $# -lt 3 ] || [ "$3" != -- ]; then usage; fi
name=$1 zone=$2
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tpu() { gcloud compute tpus tpu-vm "$1" "${@:2}" --zone="$zone"; }
on_all() { tpu ssh "$name" --worker=all --command="$1"; }

if ! tpu describe "$name" >/dev/null 2>&1; then
  tpu create "$name" --accelerator-type="${TYPE:-v4-8}" --version="${VERSION:-tpu-ubuntu2204-base}"
fi
hosts=$(tpu describe "$name" --format='value[delimiter=" "](networkEndpoints[].ipAddress)' | wc -w)
if [ "$hosts" != 1 ]; then
  echo "$name has $hosts hosts: --strategy=tpu uses one. Choose a smaller TYPE." >&2
  exit 2
fi

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
tpu scp "$archive" "$name:simsiam.tar.gz" --worker=all
# tensorflow-tpu takes the place of the tensorflow that the package asks for.
on_all 'set -e
mkdir -p simsiam && tar -xzf simsiam.tar.gz -C simsiam && cd simsiam
if [ ! -x .venv/bin/python ]; then
  sudo apt-get update -q && sudo apt-get install -y -q python3.11-venv
  python3.11 -m venv .venv
fi
.venv/bin/pip install -q -e .
.venv/bin/pip uninstall -q -y tensorflow
.venv/bin/pip install -q --force-reinstall tensorflow-tpu \
  -f https://storage.googleapis.com/libtpu-tf-releases/index.html'

printf -v flags ' %q' "$@"
status=0
on_all "cd simsiam && exec env TPU_NAME=local .venv/bin/python -m simsiam_tf.pretrain --strategy=tpu$flags" || status=$?
echo "ended with status $status. Fetch the work folder, then delete the TPU:" >&2
echo "  gcloud compute tpus tpu-vm scp --recurse $name:simsiam/runs . --zone=$zone" >&2
echo "  gcloud compute tpus tpu-vm delete $name --zone=$zone" >&2
exit "$status"
