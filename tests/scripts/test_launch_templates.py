"""scripts/launch: what Slurm and Cloud TPU would start, with stand-ins for their commands."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from helpers.launch_stand_ins import LAUNCH, ROOT, parse_pretrain, read_cluster, stand_in_environment

from simsiam_tf.training import pretraining

FLAGS = ["--flagfile=flags/quickstart.cfg", "--workdir=/shared/two words"]


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda p: p.name)
def test_the_shell_can_read_them(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert os.access(script, os.X_OK)


def slurm(env, status, state="RUNNING", restarts=0):
    env |= {
        "STATUS": str(status), "STATE": state, "SLURM_RESTART_COUNT": str(restarts), "SLURM_NTASKS": "3",
        "SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "gpu[9-11]", "SLURM_SUBMIT_DIR": str(ROOT),
        "PYTHON": "python",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sh", *FLAGS], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stderr
    requeued = Path(f"{env['TOLD']}.requeued")
    said = requeued.read_text().split("\n")[:-1] if requeued.exists() else []
    requeued.unlink(missing_ok=True)
    return said


def test_slurm_tasks_know_each_other_by_rank(tmp_path, monkeypatch):
    env, told = stand_in_environment(tmp_path)
    assert slurm(env, 0) == []
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    found = [read_cluster(tf_config, monkeypatch) for tf_config, _ in lines]
    hosts = [f"gpu{n}:{20000 + 41234 % 20000}" for n in (9, 10, 11)]  # as Slurm numbers its tasks
    assert found == [(hosts, rank) for rank in range(3)]
    for _, argv in lines:
        assert (
            parse_pretrain(argv).workdir == "/shared/two words"
            and parse_pretrain(argv).strategy == "multi_worker"
        )


def test_slurm_requeues_what_was_interrupted_and_nothing_else(tmp_path):
    env, _ = stand_in_environment(tmp_path)
    assert slurm(env, pretraining.INTERRUPTED) == ["requeue 41234"]
    assert slurm(env, 137) == ["requeue 41234"]  # a task was killed
    for status in (pretraining.DONE, 1, 2, pretraining.COLLAPSED, pretraining.DIVERGED):
        assert slurm(env, status) == []
    assert slurm(env, pretraining.INTERRUPTED, state="COMPLETING") == []  # cancelled
    assert slurm(env, pretraining.INTERRUPTED, restarts=20) == []


def test_slurm_signals_the_tasks_and_may_requeue():
    options = re.findall(r"^#SBATCH --(\S+)$", (LAUNCH / "slurm.sh").read_text(), re.M)
    assert {"signal=TERM@120", "requeue", "ntasks-per-node=1"} <= set(options)


def slurm_resolver(monkeypatch, nodes, rank, tasks=4):
    monkeypatch.setenv("SLURM_PROCID", str(rank))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(tasks))
    monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", f"1(x{tasks})")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # without it the resolver runs nvidia-smi
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    return resolver.cluster_spec().job_tasks("worker"), resolver.task_id


def test_without_tf_config_slurms_variables_tell_the_cluster(monkeypatch):
    hosts = [f"n{i}:8888" for i in range(1, 5)]
    for rank in range(4):
        assert slurm_resolver(monkeypatch, "n[1-4]", rank) == (hosts, rank)


def test_why_the_template_sets_tf_config(monkeypatch):
    """When this fails, TensorFlow has mended its order: Slurm's rank 0 is on n9."""
    hosts, task = slurm_resolver(monkeypatch, "n[9-12]", 0)
    assert hosts[task] == "n10:8888"


def tpu_vm(env, status=0, hosts=1):
    env |= {"STATUS": str(status), "HOSTS": str(hosts), "TYPE": "v4-8"}
    command = ["bash", LAUNCH / "tpu_vm.sh", "me", "zone-b", "--", *FLAGS]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_tpu_vm_makes_a_tpu_once_and_runs_there(tmp_path):
    env, told = stand_in_environment(tmp_path)
    assert tpu_vm(env).returncode == 0
    assert tpu_vm(env, pretraining.INTERRUPTED).returncode == pretraining.INTERRUPTED
    calls = [line.split()[3] for line in told.read_text().splitlines()]
    run = ["describe", "scp", "ssh", "ssh"]  # hosts, code, installation, training
    assert calls == ["describe", "create", *run, "describe", *run]
    assert told.read_text().count("--zone=zone-b") == len(calls)
    remote = subprocess.run(
        ["bash", "-c", f"args=({told.read_text().splitlines()[-1]}); printf '%s\\n' \"${{args[@]}}\""],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (command,) = re.findall(r"^--command=.* exec env TPU_NAME=local (.*)$", remote, re.M)
    argv = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True
    ).stdout.splitlines()
    assert argv[0] == ".venv/bin/python"
    found = parse_pretrain(argv[1:])
    assert (found.strategy, found.workdir) == ("tpu", "/shared/two words")


def test_tpu_vm_refuses_several_hosts(tmp_path):
    env, told = stand_in_environment(tmp_path)
    done = tpu_vm(env, hosts=2)
    assert done.returncode == 2 and "has 2 hosts" in done.stderr
    assert "scp" not in told.read_text()


def test_tpu_vm_says_that_it_has_not_been_run():
    assert "HAS NOT BEEN RUN" in (LAUNCH / "tpu_vm.sh").read_text()
    done = subprocess.run(["bash", LAUNCH / "tpu_vm.sh"], capture_output=True, text=True)
    assert done.returncode == 2 and "tpu_vm.sh NAME ZONE" in done.stderr
