"""Strategies by name, batches for replicas, collective operations, and the precision."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from simsiam_tf.distributed import ports, rendezvous
from simsiam_tf.runtime.errors import UserError


def look_for_devices() -> None:
    """Makes TensorFlow look for GPUs, so that its complaints on stderr, if there are none, come now."""
    tf.config.list_physical_devices()


def strategy_by_name(name: str, join_minutes: float = 10.0) -> tf.distribute.Strategy:
    """Makes the strategy that the option `strategy` names.

    auto: several workers if TF_CONFIG or a Slurm job lists them, or else a TPU if one is attached, or else
    all GPUs if there are at least two, or else one device: TensorFlow's present strategy.

    join_minutes: how long several workers wait for each other.
    """
    name = _detect() if name == "auto" else name
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return _mirrored(*(d.name for d in devices))
    if name == "multi_worker":
        return _multi_worker(join_minutes)
    if name == "tpu":
        try:
            name = os.environ.get("TPU_NAME", "local")
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu=name)
        except (ValueError, tf.errors.OpError) as error:
            raise UserError(
                "strategy=tpu: no TPU is attached to this machine. Pass strategy=auto."
            ) from error
        return tf.distribute.TPUStrategy(resolver)
    return tf.distribute.get_strategy()


class _Mirrored(tf.distribute.MirroredStrategy):
    """MirroredStrategy whose collective keys differ from those of the user's own strategies."""

    _collective_key_base = 10**6


@functools.cache
def _mirrored(*devices: str) -> tf.distribute.MirroredStrategy:
    # NOTE: cached, so that a process has one. Every strategy numbers its collectives from the same start, and
    # TensorFlow treats two with the same number as one operation, whose shapes would have to agree.
    return _Mirrored(list(devices))


def _detect() -> str:
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
        workers = len(cluster.get("worker", [])) + len(cluster.get("chief", []))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"TF_CONFIG: is not JSON of a cluster ({error}). Unset it or mend it.") from error
    if workers > 1 or _slurm_tasks() > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def _slurm_tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", "1"))


def _multi_worker(join_minutes: float) -> tf.distribute.Strategy:
    """Joins the workers of TF_CONFIG or of a Slurm job; waits until all have joined, or raises LostWorker."""
    resolvers = tf.distribute.cluster_resolver
    if "TF_CONFIG" not in os.environ and _slurm_tasks() <= 1:
        raise UserError(
            "strategy=multi_worker: neither TF_CONFIG nor a Slurm job tells who the other workers "
            "are. Set TF_CONFIG on every worker, start by srun, or pass strategy=auto."
        )
    try:
        from_config = "TF_CONFIG" in os.environ
        resolver = resolvers.TFConfigClusterResolver() if from_config else resolvers.SlurmClusterResolver()
        addresses, index = worker_addresses(resolver)
        if not 0 <= index < len(addresses):
            raise ValueError(f"task {index} of {len(addresses)}")
        for address in addresses:
            if not address.rpartition(":")[2].isdigit():
                raise ValueError(f"{address!r} has no port")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG: names no task among its workers ({error}). It has to be like "
            '{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}.'
        ) from error
    if len(addresses) > 1:
        rendezvous.wait_for_all(addresses, index, 60 * join_minutes)
    # NOTE: without this TensorFlow uses its gRPC ring on GPUs, too, which is about a hundred times slower.
    implementations = tf.distribute.experimental.CommunicationImplementation
    chosen = implementations.NCCL if tf.config.list_physical_devices("GPU") else implementations.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=chosen)
    with rendezvous.start_deadline(addresses, index):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, communication_options=options)
        host, _, port = addresses[index].rpartition(":")
        ports.restrict_port(int(port), host)
    return strategy


def worker_addresses(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> tuple[list[str], int]:
    """Returns HOST:PORT of all workers, the chief first, and the number of this process among them."""
    spec = resolver.cluster_spec()
    addresses = [a for job in ("chief", "worker") if job in spec.jobs for a in spec.job_tasks(job)]
    first = len(spec.job_tasks("chief")) if "chief" in spec.jobs else 0
    if resolver.task_id is None:
        raise ValueError("no task")
    return addresses, resolver.task_id + (first if resolver.task_type == "worker" else 0)


def augments_on_device(strategy: tf.distribute.Strategy, choice: str) -> bool:
    """Returns whether the second stage of the views runs with the model (`augment_on`).

    choice: "device", "host", or "auto": whether there are GPUs or TPUs, whose memory is faster and whose host
    is busy.
    """
    if choice != "auto":
        return choice == "device"
    devices = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
    return bool(devices) or isinstance(strategy, tf.distribute.TPUStrategy)


def distributed_iterator(
    strategy: tf.distribute.Strategy,
    batch: int,
    make: Callable[[tuple[int, int], int], tf.data.Dataset],
) -> Iterator:
    """Iterates over this process's share of every global batch.

    batch: rows of the global batch. make: (rows [a, b) that this process has of it, number of replicas that
    share these rows) → dataset with an element for each replica, those of a step in order.
    """
    if strategy.num_replicas_in_sync == 1:
        return iter(make((0, batch), 1))

    def dataset_of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = batch // context.num_input_pipelines
        start = context.input_pipeline_id * share
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return make((start, start + share), replicas)

    return iter(strategy.distribute_datasets_from_function(dataset_of_worker))


def set_precision(name: str) -> str:
    """Sets Keras' dtype policy and returns "float32" or "bfloat16".

    auto: bfloat16 on TPUs, on GPUs from compute capability 8.0, and on CPUs with AVX512-BF16
    or AMX-BF16, where it was measured to be 1.6 to 2 times faster than float32.
    """
    if name == "auto":
        name = "bfloat16" if _has_bfloat16() else "float32"
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    return name


def _has_bfloat16() -> bool:
    if tf.config.list_logical_devices("TPU"):
        return True
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = (tf.config.experimental.get_device_details(g) for g in gpus)
        return all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def all_gather(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rows of all replicas, [n · B, …], and the index of this replica's first row among them.

    x: [B, …] of this replica, with the same B on each. Gradients go back to the replicas they belong to.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x, tf.constant(0)
    x = tf.identity(x)  # NOTE: a tensor from an iterator has no device, and workers cannot gather it
    return context.all_gather(x, axis=0), context.replica_id_in_sync_group * tf.shape(x)[0]


def all_reduce_sum(x: tf.Tensor) -> tf.Tensor:
    """Returns the sum of x over all replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def local_devices() -> list[str]:
    """Returns the devices of this process's replicas, in their order; [""] for a single replica."""
    strategy = tf.distribute.get_strategy()
    return list(strategy.extended.worker_devices) if strategy.num_replicas_in_sync > 1 else [""]


def local_replica() -> tuple[int, int]:
    """Returns this replica's index within its process, and the number of replicas in the process."""
    replica, count = _replica_number(), len(local_devices())
    return replica % count, count


def this_worker_mask(rows: tf.Tensor) -> tf.Tensor:
    """Returns 1 for each row of `all_gather` that comes from this process, else 0: float32 [n · B]."""
    count = len(local_devices())
    workers = tf.distribute.get_strategy().num_replicas_in_sync // count
    share = tf.shape(rows)[0] // workers
    return tf.cast(tf.range(tf.shape(rows)[0]) // share == _replica_number() // count, tf.float32)


def _replica_number() -> int:
    """Returns the index of this replica among those of all processes."""
    context = tf.distribute.get_replica_context()
    assert context is not None
    return int(tf.get_static_value(context.replica_id_in_sync_group))  # pyright: ignore[reportArgumentType]
