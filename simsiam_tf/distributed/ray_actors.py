"""Work on a cluster by Ray Data: each item is given to one of many actors, which all work alike.

An item whose actor or machine is lost is done again by another. Items and results are a few bytes: the actors
read and write the data by themselves, so that Ray's object store stays empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from simsiam_tf.runtime import progress, signals
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

LOCAL = "local"  # address of a cluster of this machine alone, which begins and ends with the command
CORES = 8  # most cores of an actor without a GPU, by default
RESULT_BYTES = 2**20  # more than an actor's results; of which Ray Data keeps twice as much free for each


@dataclasses.dataclass(frozen=True)
class ActorSize:
    """How many actors fit into a cluster, and what each has: cores, and a GPU or none."""

    count: int
    cores: int
    gpus: int


def import_ray(address: str) -> Any:
    """The module ray. Raises UserError where it is not installed. Its usage statistics are off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of native code, which writes to stderr
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"ray={address}: needs Ray: pip install 'simsiam-tf[ray]'.") from error
    return ray


@contextlib.contextmanager
def joined_cluster(address: str) -> Iterator[Any]:
    """Joins a cluster, or starts one, and leaves it at the end; yields the module ray.

    address: LOCAL; "auto", the cluster that this machine belongs to; or HOST:PORT of one it belongs to.

    Raises:
        UserError: there is no such cluster, or it cannot be started.
    """
    ray = import_ray(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options["include_dashboard"] = False
    # NOTE: private. Ray prints pages about each lost machine on stdout; `run_items` has a line for it.
    ray._private.worker._worker_logs_enabled = False
    try:
        with signals.keep_handlers():
            ray.init(address=address, **options)
    except Exception as error:  # noqa: BLE001 - Ray raises many types, Exception among them
        fix = (
            "Free some cores"
            if address == LOCAL
            else "Start one with ray start --head, and ray start on others"
        )
        raise UserError(f"ray={address}: no cluster ({one_line(error)[:200]}). {fix}.") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def actor_size(nodes: Sequence[dict[str, float]], cores: int | None) -> ActorSize:
    """The actors of a cluster: one for each GPU, or, without any, for every `cores` cores of a machine.

    Args:
        nodes: resources of each machine, as Ray counts them: "CPU", "GPU".
        cores: cores of an actor; by default all of a machine's, shared by its GPUs, or else up to `CORES`.

    Raises:
        UserError: no machine has so many cores.
    """
    gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0
    room = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    room = [(cpu, gpu) for cpu, gpu in room if cpu and gpu >= gpus]
    if cores is None:
        cores = min((max(1, cpu // gpu) if gpus else min(CORES, cpu) for cpu, gpu in room), default=1)
    count = sum(min(cpu // cores, gpu) if gpus else cpu // cores for cpu, gpu in room)
    if not count:
        most = max((cpu for cpu, _ in room), default=0)
        raise UserError(f"ray_cores={cores}: no machine of the cluster has so many; the largest has {most}.")
    return ActorSize(count, cores, gpus)


def run_items(
    ray: Any, make: Callable[[int], Callable[[int], Any]], items: Sequence[int], cores: int | None = None
) -> Iterator[int]:
    """Does items on the cluster; yields each when it is done, in any order.

    Args:
        make: number of cores → a function that does an item. It is called once in each actor.
        items: numbers.
        cores: cores of an actor, as for `actor_size`.

    Raises:
        UserError: `make` or its function raised one, or the cluster was lost.
    """
    machines = _alive(ray)
    size = actor_size([node["Resources"] for node in machines], cores)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.target_max_block_size = False, RESULT_BYTES
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    count = min(size.count, len(items))
    # NOTE: one task at a time, and down to one actor: idle actors then make room for those of lost machines.
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=count, initial_size=count, max_tasks_in_flight_per_actor=1
    )
    done = ray.data.from_items(list(items), override_num_blocks=len(items)).map(
        Actor, fn_constructor_args=(make, size.cores), compute=pool, num_cpus=size.cores,
        num_gpus=size.gpus,
    )  # fmt: skip
    try:
        for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
            for item, problem in zip(batch["item"].tolist(), batch["problem"].tolist(), strict=True):
                if problem:
                    raise UserError(problem)
                yield item
            before, machines = len(machines), _alive(ray)
            if len(machines) < before:
                progress.say(
                    f"the cluster has lost {before - len(machines)} of {before} machines; others take over"
                )
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError):  # an error in this package
            raise
        raise UserError(
            f"`ray`: the cluster was lost ({one_line(error)[:300]}). Rerun the same command."
        ) from error


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


class Actor:
    """An actor: its errors for the user are results, since Ray would wrap them and try again."""

    def __init__(self, make: Callable[[int], Callable[[int], Any]], cores: int) -> None:
        self.problem = ""
        try:
            self.function = make(cores)
        except UserError as error:
            import ray.util

            self.problem = f"{error} (On {ray.util.get_node_ip_address()}.)"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        item, problem = int(row["item"]), self.problem
        if not problem:
            try:
                self.function(item)
            except UserError as error:
                problem = str(error)
        return {"item": item, "problem": problem}
