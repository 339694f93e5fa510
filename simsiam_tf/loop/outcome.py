"""How a run ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.task import Accuracies

DONE, COLLAPSED, DIVERGED = 0, 3, 4


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run.

    status: DONE, COLLAPSED, DIVERGED or INTERRUPTED. step: the last step. accuracy: accuracies of the
    baselines and, where it was evaluated, of the trained model. records: the training records. workers:
    processes of the run; None: this process alone. config: the run's options, with those that it has chosen.
    """

    status: int
    step: int
    diagnosis: Diagnosis
    accuracy: Accuracies
    workdir: Path
    records: list[dict]
    workers: Workers | None = None
    config: Any = None

    def print_and_leave(self, summary: str) -> int:
        """Prints a summary and returns the exit status.

        Of several workers only the chief prints; each ends its process here instead of returning.
        """
        if self.workers is None or self.workers.chief:
            print(summary)
        if self.workers is not None:
            self.workers.leave(self.status)
        return self.status
