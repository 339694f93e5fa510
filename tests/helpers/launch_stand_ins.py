"""Stand-ins for srun, scontrol, squeue, gcloud and python on PATH, which record their arguments."""

import os
import sys
from pathlib import Path

import tensorflow as tf

from simsiam_tf import config
from simsiam_tf.command_line import cli

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "scripts" / "launch"

# Writes TF_CONFIG and arguments as a line of JSON into $TOLD, and ends with $STATUS.
PYTHON = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["TOLD"], "a") as told:
    told.write(json.dumps([os.environ.get("TF_CONFIG"), sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("STATUS", "0")))
"""
# Runs the command for every rank, as srun does on nodes; ends with the largest status.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
most=0
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
  code=0; SLURM_PROCID=$rank "$@" || code=$?
  ((code > most)) && most=$code
done
exit $most
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'gpu%d\\n' 9 10 11; else echo "$*" >> "$TOLD.requeued"; fi
"""
# Records its arguments; a TPU exists after "create", with $HOSTS hosts.
GCLOUD = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$TOLD"; echo >> "$TOLD"
case $4 in
  create) touch "$TOLD.made" ;;
  describe) [ -e "$TOLD.made" ] || exit 1; for ((i = 0; i < HOSTS; i++)); do printf '10.0.0.%d ' $i; done ;;
  ssh) if [[ $* == *simsiam_tf.pretrain* ]]; then exit "$STATUS"; fi ;;
esac
"""


def stand_in_environment(folder):
    """(environment with the stand-ins on PATH, the file that they write)."""
    programs = {"python": PYTHON, "srun": SRUN, "scontrol": SCONTROL, "gcloud": GCLOUD}
    programs["squeue"] = '#!/usr/bin/env bash\necho "$STATE"\n'
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    told = folder / "told"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TF_CONFIG"))}
    return {**environment, "PATH": f"{folder}:{environment['PATH']}", "TOLD": str(told)}, told


def read_cluster(tf_config, monkeypatch):
    """(addresses, task id) as TensorFlow reads TF_CONFIG."""
    monkeypatch.setenv("TF_CONFIG", tf_config)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert resolver.task_type == "worker" and resolver.cluster_spec().jobs == ["worker"]
    return resolver.cluster_spec().job_tasks("worker"), resolver.task_id


def parse_pretrain(argv):
    """The configuration of a command line of simsiam_tf.pretrain; fails for a flag that does not exist."""
    assert argv[:2] == ["-m", "simsiam_tf.pretrain"]
    return cli.parse(config.PretrainConfig, argv[2:])
