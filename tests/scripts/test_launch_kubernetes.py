"""scripts/launch/kubernetes.yaml: its shell lines run, its parts fit, and it goes on where it should."""

import json
import re
import subprocess
import textwrap

import pytest
import yaml  # keras-cv's requirements bring it
from helpers.launch_stand_ins import LAUNCH, ROOT, parse_pretrain, read_cluster, stand_in_environment

from simsiam_tf.training import pretraining


@pytest.fixture(scope="module")
def manifests():
    found = {m["kind"]: m for m in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())}
    assert set(found) == {"Service", "PersistentVolumeClaim", "Job"}
    return found


def kubernetes_script():
    """The container's shell lines, and WORKERS, read without a YAML parser."""
    text = (LAUNCH / "kubernetes.yaml").read_text()
    (block,) = re.findall(r"args:\n\s+- \|\n((?: {14}.*\n)+)", text)
    (workers,) = re.findall(r"name: WORKERS\n\s+value: \"(\d+)\"", text)
    return textwrap.dedent(block), workers


def test_kubernetes_workers_know_each_other_by_index(tmp_path, monkeypatch):
    env, told = stand_in_environment(tmp_path)
    script, workers = kubernetes_script()
    for index in range(int(workers)):
        env |= {"WORKERS": workers, "JOB_COMPLETION_INDEX": str(index)}
        subprocess.run(["bash", "-euc", script], env=env, cwd=ROOT, check=True, timeout=60)
        tf_config, argv = json.loads(told.read_text().splitlines()[-1])
        hosts = [f"simsiam-{i}.simsiam:2222" for i in range(int(workers))]
        assert read_cluster(tf_config, monkeypatch) == (hosts, index)
        assert parse_pretrain(argv).workdir.startswith("/shared/")


def test_kubernetes_parts_fit_together(manifests):
    script, workers = kubernetes_script()
    job, service, claim = (manifests[k] for k in ("Job", "Service", "PersistentVolumeClaim"))
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(workers)
    assert worker["args"] == [script] and worker["command"] == ["bash", "-euc"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert pod["subdomain"] == service["metadata"]["name"]  # simsiam-0.simsiam
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert worker["volumeMounts"][0] == {"name": pod["volumes"][0]["name"], "mountPath": "/shared"}
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_kubernetes_goes_on_after_an_interruption_and_fails_otherwise(manifests):
    job = manifests["Job"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a policy for failures asks for it
    name = job["template"]["spec"]["containers"][0]["name"]
    does = {}
    for rule in job["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"operator": "In", "values": ["disruption"], "containerName": name})
        assert codes["operator"] == "In" and codes["containerName"] == name
        for code in codes["values"]:
            does.setdefault(code, rule["action"])  # the first that fits
    assert does.pop("disruption") == does.pop(pretraining.INTERRUPTED) == "Ignore"
    assert does == dict.fromkeys((2, pretraining.COLLAPSED, pretraining.DIVERGED), "FailJob")
