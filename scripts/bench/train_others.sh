#!/usr/bin/env bash
# Trains a ViT of keras-hub and EfficientNetV2-B0 of keras.applications on Fashion-MNIST for 468 steps, each
# once as it is and once with two kills by signal 9. Prints the kNN accuracies and compares the checkpoints.
# bash scripts/bench/train_others.sh FOLDER (a quarter of an hour on two cores; needs the extra kerashub)
set -euo pipefail
folder=$(realpath -m "${1:?Pass a folder for the runs}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p "$folder"
export PYTHONPATH=$PWD:$PWD/scripts/bench TF_CPP_MIN_LOG_LEVEL=3
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)

common=(--data=fashion_mnist --epochs=1 --batch_size=128 --crop_area=0.6 --jitter=0.8 --blur_p=0.5 --d=256
  --projector_layers=2 --projector_hidden=256 --predictor_lr=constant --predictor_lr_factor=10
  --precision=float32 --knn_every=1 --save_minutes=0.5)
# shellcheck disable=SC2034  # used by declare -n below
{
vit=(--backbone=py:small_vit:build --optimizer=adamw --base_lr=5e-4 --weight_decay=0.05 --warmup_epochs=0.2)
efficientnet=(--backbone=keras:EfficientNetV2B0 --image_size=32 --base_lr=0.4)
}

train() {  # NAME OPTIONS
  local name=$1; shift
  "$python" -m simsiam_tf.pretrain "${common[@]}" "$@" --workdir="$folder/$name" >> "$folder/$name.log" 2>&1
}

for network in vit efficientnet; do
  declare -n options=$network
  train "$network" "${options[@]}"
  for seconds in 70 110; do
    train "$network-killed" "${options[@]}" &
    sleep "$seconds"
    pkill -9 -f -- "--workdir=$folder/$network-killed" || echo "ended within $seconds s"
    wait || true
  done
  train "$network-killed" "${options[@]}"
  echo "$network"
  grep -E "loss  |pixels  |backbone  " "$folder/$network.log"
  cmp "$folder/$network"{,-killed}/checkpoints/step-00000468/state.data-00000-of-00001
  echo "the run with kills ended with the same checkpoint, to the bit"
done
