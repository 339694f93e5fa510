#!/usr/bin/env bash
# From a fresh checkout to a pre-trained backbone on real images: a few minutes on two cores.
# Rerun it at will: a finished installation, download or training is not repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

set_up ""

# Fashion-MNIST: Debian's package where it can be installed, otherwise TFDS downloads it, once.
tfds=${TFDS_DATA_DIR:-${HOME:-/root}/tensorflow_datasets}/fashion_mnist
if [ ! -e "${FASHION_MNIST_DIR:-/usr/share/datasets/fashion-mnist}" ] && ! compgen -G "$tfds/*/dataset_info.json" >/dev/null && can_apt; then
  echo "installing dataset-fashion-mnist"
  apt_install dataset-fashion-mnist || echo "not available from apt; TFDS will download Fashion-MNIST instead"
fi

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
if [ "$(nproc)" = 2 ]; then  # a core for each of the two views: docs/performance.md, "Threads"
  export TF_NUM_INTRAOP_THREADS="${TF_NUM_INTRAOP_THREADS:-1}" TF_NUM_INTEROP_THREADS="${TF_NUM_INTEROP_THREADS:-2}"
fi
exec .venv/bin/python -m simsiam_tf.pretrain --flagfile=flags/quickstart.cfg "$@"
