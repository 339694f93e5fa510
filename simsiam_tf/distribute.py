"""Devices: strategy by name, data for its replicas, arithmetic that the hardware has."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy

from simsiam_tf.errors import UserError

HEALTH_SECONDS = 5, 4  # between looks at the other workers, and until one is missed; three misses count
JOIN_SECONDS = 600  # until all workers have to be there


def strategy_by_name(name: str) -> tf.distribute.Strategy:
    """The strategy that `--strategy` names.

    auto: several workers where TF_CONFIG lists them, a TPU where one is attached, all GPUs
    where there are at least two, else one device.
    """
    if name == "auto":
        name = _detect()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    if name == "multi_worker":
        return _multi_worker()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu="local")
        except (ValueError, tf.errors.OpError) as error:
            raise UserError(
                "--strategy=tpu: no TPU is attached to this machine. Pass --strategy=auto."
            ) from error
        return tf.distribute.TPUStrategy(resolver)
    return tf.distribute.get_strategy()


def _detect() -> str:
    cluster = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
    listed = len(cluster.get("worker", [])) + len(cluster.get("chief", []))
    if listed > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def _multi_worker() -> tf.distribute.Strategy:
    """This process among those of TF_CONFIG or of a Slurm job; waits until all have joined."""
    if "TF_CONFIG" in os.environ:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    else:
        raise UserError(
            "--strategy=multi_worker: neither TF_CONFIG nor a Slurm job tells who the other workers "
            "are. Set TF_CONFIG on every worker, start by srun, or pass --strategy=auto."
        )
    # NOTE: TensorFlow has no public way to set these. Its own values would notice a worker that
    # neither works nor ends after more than a minute, and wait for ever for one that never joins.
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    extended._check_health_interval, extended._check_health_timeout = HEALTH_SECONDS
    extended._check_health_initial_timeout = JOIN_SECONDS
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        spec = resolver.cluster_spec().as_dict()
        raise UserError(
            f"--strategy=multi_worker: not all of {spec} joined within {JOIN_SECONDS} s. Start the same "
            "command on every one of them."
        ) from error


def augments_on_device(strategy: tf.distribute.Strategy, wish: str) -> bool:
    """Whether the batch stage of the views runs with the model (`--augment_on`).

    auto: where the replicas are accelerators, whose memory is faster and whose host is busy.
    """
    if wish != "auto":
        return wish == "device"
    devices = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
    return bool(devices) or isinstance(strategy, tf.distribute.TPUStrategy)


def check_batch(strategy: tf.distribute.Strategy, batch: int) -> None:
    """Raises UserError when the global batch does not divide over the replicas."""
    n = strategy.num_replicas_in_sync
    if batch % n:
        raise UserError(
            f"--batch_size={batch} does not divide over {n} replicas. "
            f"Try --batch_size={max(1, batch // n) * n} or --strategy=one_device."
        )


def iterator(
    strategy: tf.distribute.Strategy,
    batch: int,
    make: Callable[[tuple[int, int], int], tf.data.Dataset],
) -> Iterator:
    """An iterator over this process's share of every global batch.

    make: (rows [a, b) of the global batch, parts to cut them into) → dataset, one element a
    part, a step's parts in order.
    """
    if strategy.num_replicas_in_sync == 1:
        return iter(make((0, batch), 1))

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = batch // context.num_input_pipelines
        start = context.input_pipeline_id * share
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return make((start, start + share), replicas)

    return iter(strategy.distribute_datasets_from_function(of_worker))


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
