"""What a transfer would do and cost, without training."""

from __future__ import annotations

import dataclasses
from typing import Any

from simsiam_tf.config import TransferConfig, to_flags
from simsiam_tf.dense_tasks import stand_ins, transfer_task
from simsiam_tf.distributed import strategies
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.optimizers import schedules
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.training import costs, run_memory


def dry_run(config: TransferConfig) -> int:
    """Prints the options, and the images, steps, parameters, memory and work of the run. Returns 0.

    Weights that are not there yet count as a ResNet-50, VOC and COCO by their published numbers.

    Raises:
        UserError: images or weights cannot be opened, as for `run_transfer`.
    """
    transfer_task.check_libraries(config)
    workers = Workers(strategies.strategy_by_name(config.strategy, config.join_minutes))
    missing = stand_ins.pretrained_stand_in(config), stand_ins.sets_stand_in(config)
    components, test = transfer_task.build_transfer(config.absolute(), workers, None, *missing)
    print(to_flags(config))
    for name, value in summarize(config, components, test).items():
        print(f"{name:22} {value}")
    return 0


def summarize(
    config: TransferConfig, components: RunComponents, test: transfer_task.TestImages
) -> dict[str, str]:
    """The properties of a run by name, in words."""
    model, train, replicas = components.model, components.source, components.strategy.num_replicas_in_sync
    shape = (config.size, config.size, test.pretrained.channels)
    whole, backbone = model.count_params(), model.backbone.count_params()
    names = test.images.class_names
    frozen = ", which stays as it is" * config.freeze
    precision, steps = components.metadata["precision"], components.total_steps
    falls = (
        "on a cosine" if config.schedule == "cosine" else f"tenfold after {config.milestones} of the steps"
    )
    each, of_backbone = (costs.multiply_adds(network, shape) for network in (model, model.backbone))
    passes = costs.PASSES * each - (costs.PASSES - 1) * of_backbone * config.freeze
    memory = run_memory.estimate(components, config)
    kept: Any = (train, test.images)  # what the loop calls a source is the annotated set
    memory = dataclasses.replace(memory, images=sum(images.bytes_kept() for images in kept))
    return {
        "training images": f"{train.size} of {train.name}, {counted(len(names), 'class', 'classes')}",
        "test images": f"{test.images.size} of {test.images.name}",
        "squares": f"{config.size} pixels",
        "weights": f"{config.init}, {test.pretrained.place}",
        "precision": precision,
        "replicas": str(replicas),
        "steps": f"{steps}, {train.size / config.batch_size:.1f} per epoch",
        "learning rate": f"{schedules.scaled(config.base_lr, config.batch_size):g}, decayed {falls}",
        "parameters": f"{backbone:,} backbone{frozen}, {whole - backbone:,} for {config.task}",
        "memory, estimated": memory.in_words(),
        "work": costs.work_in_words(passes * config.batch_size * steps),
    }
