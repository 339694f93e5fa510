"""Several processes as one run: who writes, what they agree on, which share each one takes."""

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

# What a collective operation fails with on the survivors of a lost worker.
LOST = (
    tf.errors.UnavailableError, tf.errors.FailedPreconditionError, tf.errors.DeadlineExceededError,
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
)  # fmt: skip


class Workers:
    """The processes of a run. One process is a team of one, for which all of this costs nothing.

    Whatever has "all" in its description must be called by every worker, in the same order.
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
        """The rows [n, …] of all workers, one worker after the other; n may differ."""
        if self.count == 1:
            return rows
        local = len(self.strategy.extended.worker_devices)

        def of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
            return tf.constant(rows if context.replica_id_in_sync_group % local == 0 else rows[:0])

        values = self.strategy.experimental_distribute_values_from_function(of_replica)
        return self._gather(rows.dtype, rows.shape[1:])(values).numpy()

    @functools.cache  # noqa: B019 - one team a process
    def _gather(self, dtype: np.dtype, row: tuple[int, ...]) -> Callable:
        """strategy.gather for rows of one kind, with any number of them."""
        # Outside of a function TensorFlow would trace one at every call; one for all kinds warns of many.
        gather = functools.partial(self.strategy.gather, axis=0)
        return tf.function(gather, reduce_retracing=True, autograph=False)

    def all_reduce_max(self, *values: float) -> list[float]:
        """The largest of each value over all workers."""
        return self.all_gather(np.array([values], np.float64)).max(axis=0).tolist()

    def agree(self, values: dict[str, Any], mend: str) -> None:
        """Raises UserError on all workers where they differ in values (JSON), naming those.

        mend: what to do about it.
        """
        if self.count == 1:
            return
        text = np.frombuffer(json.dumps(values).encode(), np.uint8)
        lengths = self.all_gather(np.array([len(text)], np.int64))
        whole = self.all_gather(text.astype(np.int32)).astype(np.uint8)
        parts = np.split(whole, np.cumsum(lengths)[:-1])
        first, *others = (json.loads(part.tobytes()) for part in parts)
        differ = [
            f"{name} is {first.get(name)} for worker 0, {other.get(name)} for worker {i}"
            for i, other in enumerate(others, 1)
            for name in {**first, **other}
            if first.get(name) != other.get(name)
        ]
        if differ:
            raise UserError(f"the {self.count} workers differ: {'; '.join(differ[:3])}. {mend}")

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """The chief does what follows before all others: files that it makes, they find."""
        if not self.chief:
            self.all_reduce_max(0)
        yield
        if self.chief:
            self.all_reduce_max(0)

    def shard(self, ids: np.ndarray) -> np.ndarray:
        """This worker's part of a row of things, so that `gather` puts them in order again."""
        return np.array_split(ids, self.count)[self.index]

    def leave(self, status: int) -> None:
        """Ends this process as soon as all have come so far; does nothing in a team of one.

        Python's own end takes TensorFlow a while, in which who is left reports the others as crashed.
        """
        if self.count > 1:
            with contextlib.suppress(tf.errors.OpError):  # one is gone already
                self.all_reduce_max(0)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def lost_worker(self, error: tf.errors.OpError) -> str | None:
        """Who is gone, where that is what an error means; None where it means something else."""
        if self.count == 1 or not isinstance(error, LOST):
            return None
        named = re.findall(r"/job:(chief|worker)/replica:0/task:(\d+)", str(error.message))
        chiefs = any(job == "chief" for job, _ in named)
        tasks = {int(task) + (1 if chiefs and job == "worker" else 0) for job, task in named} - {self.index}
        gone = ", ".join(f"worker {t} ({self.addresses[t]})" for t in sorted(tasks) if t < self.count)
        return gone or "another worker"
