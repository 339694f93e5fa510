"""How every run starts: its folder is claimed, its workers agree, then the loop has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop.loop import Loop, Outcome
from simsiam_tf.loop.task import Task
from simsiam_tf.loop.workdir import Workdir
from simsiam_tf.runtime import malloc
from simsiam_tf.runtime.devices import on_cpu
from simsiam_tf.runtime.errors import LostWorker
from simsiam_tf.runtime.versions import library_versions


def run(
    config: Any,
    make: Callable[[Any, Workers, Path], Task],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Outcome:
    """Runs a task in config.workdir, continuing what is there.

    Args:
        config: a validated configuration with workdir, strategy, join_minutes and what `Task` names.
        make: (the configuration with absolute paths, workers, file for names of unreadable images) →
            the task; called once the workers are known to have the same flags.
        callbacks: Keras callbacks besides the task's own.

    Raises:
        UserError: before any training, for whatever cannot work.
    """
    if on_cpu():
        malloc.retain_freed_memory()
    workers = Workers(strategies.strategy_by_name(config.strategy, config.join_minutes))
    workdir = Workdir(config.workdir, workers.chief)
    try:
        workdir.check_config(config)
        workers.agree(binding_flags(config), "Start the same command on all of them.")
        config = config.absolute()
        task = make(config, workers, workdir.path / "unreadable.json")
        workers.agree(task.components.metadata, "All of them need the same data.")
        workdir.bind(config, task.components.metadata)
        return Loop(task, workdir, callbacks).run()
    except tf.errors.OpError as error:
        gone = workers.lost_worker(error)
        if gone is None:
            raise
        raise LostWorker(
            f"{workdir.path}: {gone} has ended or cannot be reached. Rerun the same command on all "
            "workers to continue from the newest checkpoint."
        ) from error
    finally:
        workdir.release()


def binding_flags(config: Any) -> dict:
    """What all workers of a run must have in common before they begin."""
    own = ("workdir", "data_dir")  # a worker may have its own path to what they share
    flags = {f"`{k}`": v for k, v in dataclasses.asdict(config).items() if k not in own}
    return {**flags, **library_versions()}
