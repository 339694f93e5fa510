"""The components that every run has."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simsiam_tf.data import Source, Views
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.methods import ViewModel


@dataclasses.dataclass
class RunComponents:
    """The components of any run; `metadata` are what "auto" came to and what binds the run besides flags."""

    strategy: tf.distribute.Strategy
    source: Source
    views: Views
    model: ViewModel
    total_steps: int
    precision: str
    on_device: bool  # the batch stage of the views runs with the model
    metadata: dict
    workers: Workers
    data_service: str | None = None  # HOST:PORT of the dispatcher
    first_step: int = 0  # where a run begins that another program has begun
    targets: bool = dataclasses.field(default=False, kw_only=True)  # batches hold their images' labels
