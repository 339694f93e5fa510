"""How many actors a cluster gets, their errors, and the flag that asks for them; without a cluster."""

import re
import subprocess
import sys

import numpy as np
import pytest

from simsiam_tf import embed
from simsiam_tf.distributed import ray_actors
from simsiam_tf.distributed.ray_actors import ActorSize, actor_size
from simsiam_tf.runtime.errors import UserError


def test_a_flag_without_a_value():
    from simsiam_tf.command_line import cli

    parse = lambda *argv: cli.parse(embed.EmbedConfig, ["--weights=w", *argv])
    assert parse("--ray", "--out=a/").ray == "local" and parse("--out=a/", "--ray=h:1").ray == "h:1"
    assert parse("--out=a.npz").ray is None
    assert parse("--out=a/", "--ray", "--batch_size=100").rows_per_shard == 8200
    assert parse("--out=a/", "--ray").rows_per_shard == 8192


def test_help_and_the_package_load_no_ray():
    code = (
        "import sys, simsiam_tf.embed as e; e.main(['--help'])\n"
        "import simsiam_tf.features.embedding_file, simsiam_tf.distributed.ray_actors\n"
        "sys.exit('ray' in sys.modules or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--ray[=str]" in done.stdout, done.stderr


def test_actors_by_hand():
    cpu, dgx = {"CPU": 16.0, "memory": 1.0}, {"CPU": 112.0, "GPU": 8.0}
    assert actor_size([cpu, cpu], None) == ActorSize(4, 8, 0)
    assert actor_size([{"CPU": 2.0}] * 3, None) == ActorSize(3, 2, 0)
    assert actor_size([cpu, {"CPU": 3.0}], None) == ActorSize(6, 3, 0)
    assert actor_size([cpu, {"CPU": 3.0}], 5) == ActorSize(3, 5, 0)
    assert actor_size([dgx, cpu], None) == ActorSize(8, 14, 1)  # nothing on the machine without a GPU
    assert actor_size([dgx, {"CPU": 4.0, "GPU": 1.0}], None) == ActorSize(9, 4, 1)
    assert actor_size([dgx], 30) == ActorSize(3, 30, 1)
    with pytest.raises(
        UserError, match="ray_cores=17: no machine of the cluster has so many; the largest has 16"
    ):
        actor_size([cpu], 17)


def test_an_actor_returns_errors_for_the_user_and_raises_others():
    def make(cores):
        if cores == 3:
            raise UserError("no weights.")
        return lambda item: {0: lambda: None, 1: fail, 2: lambda: 1 / 0}[item]()

    def fail():
        raise UserError("no image.")

    actor, broken = ray_actors.Actor(make, 2), ray_actors.Actor(make, 3)
    assert actor({"item": np.int64(0)}) == {"item": 0, "problem": ""}
    assert actor({"item": 1}) == {"item": 1, "problem": "no image."}
    assert re.fullmatch(r"no weights. \(On \S+.\)", broken({"item": 1})["problem"])
    with pytest.raises(ZeroDivisionError):
        actor({"item": 2})
