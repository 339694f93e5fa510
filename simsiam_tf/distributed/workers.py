"""Several processes as one run: the chief writes, all agree on options, each evaluates a share."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.runtime.errors import UserError

# What collective operations raise on the other workers when one is lost.
LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError, tf.errors.FailedPreconditionError, tf.errors.DeadlineExceededError,
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
)  # fmt: skip


class Workers:
    """The processes (workers) of a run; in a run of one process, no method waits for anything.

    Methods whose docstring speaks of "all" must be called by every worker, in the same order.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        resolver = strategy.cluster_resolver
        self.addresses: list[str] = []
        self.index = 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and resolver is not None:
            self.addresses, self.index = strategies.worker_addresses(resolver)

    @property
    def count(self) -> int:
        return max(1, len(self.addresses))

    @property
    def chief(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def all_gather(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows [n, …] of all workers, in the order of workers; n may differ among them."""
        if self.count == 1:
            return rows
        local = len(self.strategy.extended.worker_devices)

        def rows_of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
            return tf.constant(rows if context.replica_id_in_sync_group % local == 0 else rows[:0])

        values = self.strategy.experimental_distribute_values_from_function(rows_of_replica)
        return self._gather_function(rows.dtype, rows.shape[1:])(values).numpy()

    @functools.cache  # noqa: B019 - one instance a process
    def _gather_function(self, dtype: np.dtype, row: tuple[int, ...]) -> Callable:
        """Makes a graph function of `strategy.gather`, for any number of rows of one dtype and shape."""
        # Called eagerly, `gather` is traced at every call; of one function for all dtypes and shapes of rows,
        # TensorFlow warns that it is retraced. So there is one for each.
        gather = functools.partial(self.strategy.gather, axis=0)
        return tf.function(gather, reduce_retracing=True, autograph=False)

    def all_reduce_max(self, *values: float) -> list[float]:
        """Returns the largest of each value over all workers."""
        return self.all_gather(np.array([values], np.float64)).max(axis=0).tolist()

    def agree(self, values: dict[str, Any], fix: str) -> None:
        """Raises UserError on all workers if their values (JSON) differ; it names the first differences.

        fix: last sentence of the message, which says what to do.
        """
        first, *others = self._gather_json(values)
        differ = [
            f"{name} is {first.get(name)} for worker 0, {other.get(name)} for worker {i}"
            for i, other in enumerate(others, 1)
            for name in {**first, **other}
            if first.get(name) != other.get(name)
        ]
        if differ:
            raise UserError(f"the {self.count} workers differ: {'; '.join(differ[:3])}. {fix}")

    def from_chief(self, value: Any) -> Any:
        """Returns the chief's value (JSON) on all workers."""
        return self._gather_json(value)[0]

    def _gather_json(self, value: Any) -> list[Any]:
        """Returns the values (JSON) of all workers, in the order of workers."""
        if self.count == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self.all_gather(np.array([len(text)], np.int64))
        texts = self.all_gather(text.astype(np.int32)).astype(np.uint8)
        return [json.loads(t.tobytes()) for t in np.split(texts, np.cumsum(lengths)[:-1])]

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Lets the chief run the block before all others, which find the files that it makes."""
        if not self.chief:
            self.all_reduce_max(0)
        yield
        if self.chief:
            self.all_reduce_max(0)

    def shard(self, ids: np.ndarray) -> np.ndarray:
        """Returns this worker's share of an array of ids; `all_gather` joins the shares in order again."""
        return np.array_split(ids, self.count)[self.index]

    def leave(self, status: int) -> None:
        """Ends this process once all workers have called this; returns in a run of one process.

        In an ordinary exit of Python, TensorFlow would end slowly and report the workers as crashed.
        """
        if self.count > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            # From here on TensorFlow's native code could only complain that another worker ended first.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with contextlib.suppress(tf.errors.OpError):
                self.all_reduce_max(0)
            os._exit(status)

    def lost_worker(self, error: tf.errors.OpError) -> str | None:
        """Names the workers whose loss may have caused an error; None if the error has another cause."""
        if self.count == 1 or not isinstance(error, LOST_WORKER_ERRORS):
            return None
        tasks = re.findall(r"/job:(chief|worker)/replica:0/task:(\d+)", str(error.message))
        chiefs = any(job == "chief" for job, _ in tasks)
        indices = {int(task) + (1 if chiefs and job == "worker" else 0) for job, task in tasks} - {self.index}
        names = ", ".join(f"worker {i} ({self.addresses[i]})" for i in sorted(indices) if i < self.count)
        return names or "another worker"
