#!/usr/bin/env bash
# Several nodes of a Slurm cluster as one run. From the checkout, which all nodes must see:
#   sbatch --nodes=4 scripts/launch/slurm.sh --flagfile=flags/imagenet/simsiam_100ep.cfg --workdir=/shared/runs/r50
# --workdir must be a folder that all nodes share. One task per node drives all of its GPUs; on nodes without
# GPUs remove the line --gpus-per-node. Adapt the #SBATCH lines, or give sbatch the same options.
# Tested with stand-ins for srun and scontrol, not under Slurm.
#SBATCH --job-name=simsiam
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# Two minutes before the time limit the tasks (not this script) get SIGTERM: they finish their step, write a
# checkpoint and end with status 75. The job then goes back into the queue and continues from there.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
python=${PYTHON:-.venv/bin/python}
restarts=${RESTARTS:-20}
port=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}

# Under a plain srun simsiam_tf reads Slurm's own variables (TensorFlow's SlurmClusterResolver): the step's nodes
# and tasks, and SLURM_PROCID. That resolver sorts names of nodes as text, so gpu10 before gpu9, which Slurm does
# not; it needs nvidia-smi, and a GPU for every task. So every task gets a TF_CONFIG that lists all tasks, which
# takes precedence.
# shellcheck disable=SC2016 # expands in the task
task='cluster="{\"worker\": [$WORKERS]}"
export TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
exec "$@"'
WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd, -)
export WORKERS

# When a task is lost, the other tasks notice it and end with status 75, so srun need not kill them.
status=0
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  bash -c "$task" simsiam "$python" -m simsiam_tf.pretrain --strategy=multi_worker "$@" || status=$?

# 75: interrupted after a checkpoint. Above 128: a task was killed, and the others have ended with 75. When
# one task fails by itself, the others end with 75 as well, so the number of restarts has a limit.
# A job that was cancelled is not running any more, and stays cancelled.
if [ "$status" = 75 ] || [ "$status" -gt 128 ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -ge "$restarts" ]; then
    echo "restarted $restarts times; submit it again to continue" >&2
  elif [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$status"
