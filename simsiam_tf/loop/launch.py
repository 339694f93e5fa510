"""The start of every run: the work folder is locked, the workers compare their options, the loop begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.data.sources.run_images import record_images
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop.loop import Loop
from simsiam_tf.loop.outcome import Outcome
from simsiam_tf.loop.recorders import recorder_names
from simsiam_tf.loop.task import Task
from simsiam_tf.loop.workdir import Workdir
from simsiam_tf.runtime import malloc
from simsiam_tf.runtime.devices import on_cpu
from simsiam_tf.runtime.errors import LostWorker
from simsiam_tf.runtime.versions import library_versions


def run_task(
    config: Any,
    make_task: Callable[[Any, Workers, Path], Task],
    callbacks: Sequence[keras.callbacks.Callback] = (),
    recall: Callable[[Any, dict[str, Any] | None], Any] = lambda config, before: config,
) -> Outcome:
    """Runs a task in config.workdir, or continues the run in this folder.

    Args:
        config: a validated `RunConfig` with a workdir.
        make_task: a function, such as the task's class: (configuration with absolute paths, workers, file
            for the names of unreadable images) → task. It is called after all workers agree on the options.
            The task's own configuration counts from then on, so the function may choose options.
        callbacks: Keras callbacks besides the task's.
        recall: a function (configuration, `Workdir.description`) → configuration, with the options that the
            run in this folder chose at its start.

    Raises:
        UserError: before any training, an option, the data or the work folder cannot be used; later, a step
            failed or a file could not be written.
        LostWorker: another worker has ended (a UserError).
    """
    recorder_names(config.record)  # an early check
    if on_cpu():
        malloc.retain_freed_memory()
    workers = Workers(strategies.strategy_by_name(config.strategy, config.join_minutes))
    workdir = Workdir(config.workdir, workers.chief)
    try:
        config = recall(config, workers.from_chief(workdir.description()))
        workdir.check_config(config.absolute())  # as the folder has it
        # The paths of these two folders may differ among workers.
        options = {f"`{k}`": v for k, v in vars(config).items() if k not in ("workdir", "data_dir")}
        workers.agree({**options, **library_versions()}, "Start the same command on all of them.")
        config = config.absolute()
        task = make_task(config, workers, workdir.path / "unreadable.json")
        workers.agree(task.components.metadata, "All of them need the same data, weights and precision.")
        workdir.bind(task.config, task.components.metadata)
        if workers.chief:
            record_images(workdir.path, task.components.source)
        return Loop(task, workdir, callbacks).run()
    except tf.errors.OpError as error:
        lost = workers.lost_worker(error)
        if lost is None:
            raise
        raise LostWorker(
            f"{workdir.path}: {lost} has ended or cannot be reached. Rerun the same command on all "
            "workers to continue from the newest checkpoint."
        ) from error
    finally:
        workdir.release()
