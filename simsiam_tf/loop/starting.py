"""How every run starts: its folder is claimed, its workers agree, then the loop has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf import memory
from simsiam_tf.assembly import binding_flags
from simsiam_tf.cluster import distribute
from simsiam_tf.cluster.workers import Workers
from simsiam_tf.errors import LostWorker
from simsiam_tf.loop.running import Loop, Outcome
from simsiam_tf.loop.task import Task
from simsiam_tf.workdir import Workdir


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
    memory.keep()
    workers = Workers(distribute.strategy_by_name(config.strategy, config.join_minutes))
    workdir = Workdir(config.workdir, workers.chief)
    try:
        workdir.check(config)
        workers.agree(binding_flags(config), "Start the same command on all of them.")
        config = config.absolute()
        task = make(config, workers, workdir.path / "unreadable.json")
        workers.agree(task.parts.facts, "All of them need the same data.")
        workdir.agree(config, task.parts.facts)
        return Loop(task, workdir, callbacks).run()
    except tf.errors.OpError as error:
        gone = workers.lost(error)
        if gone is None:
            raise
        raise LostWorker(
            f"{workdir.path}: {gone} has ended or cannot be reached. Rerun the same command on all "
            "workers to continue from the newest checkpoint."
        ) from error
    finally:
        workdir.release()
