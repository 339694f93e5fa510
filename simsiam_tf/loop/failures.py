"""Errors of a training step as one line that says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from simsiam_tf.data.service import client
from simsiam_tf.loop.task import Task
from simsiam_tf.loop.workdir import advice, error_text
from simsiam_tf.runtime.atomic_files import UNWRITABLE
from simsiam_tf.runtime.errors import UserError


@contextlib.contextmanager
def step_failures(task: Task, workdir: Path, step: Callable[[], int]) -> Iterator[None]:
    """Turns TensorFlow errors, a lack of memory and a full or unwritable disk in the block into a UserError.

    An error that the loss of a worker may have caused is raised as it is: `launch.run_task` names the worker.

    step: returns the step that the run has reached.
    """
    try:
        yield
    except (tf.errors.OpError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNWRITABLE:
            raise
        if isinstance(error, tf.errors.OpError):
            if task.components.workers.lost_worker(error):
                raise
            if service_error := client.service_error(error):
                raise service_error from error
        raise UserError(
            f"{workdir}: step {step()} failed: {error_text(error)}. "
            f"Checkpoints are kept. {advice(error, task.config.batch_size, task.unread_image)}"
        ) from error
