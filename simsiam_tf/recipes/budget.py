"""The option `minutes`: chooses the epochs, and the images of the final evaluation, that fit into it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import sampling
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

TRIAL_EPOCHS = 1e6  # epochs of the trial run, whose steps are timed: more than any training takes
MIN_STEPS = 10  # a run for which the time suffices for fewer steps is refused
MIN_KNN_IMAGES = 100  # smallest value of the option `knn_images`


@dataclasses.dataclass
class Costs:
    """Costs in seconds of a run whose steps have been timed, from then to the end of the command.

    fixed: the parts that do not depend on the number of steps: building the model again, tracing, the
        export, the final evaluation.
    step: a training step.
    evaluation: an evaluation during the training.
    evaluation_steps: steps from one evaluation to the next; 0 without evaluations.
    final_images: number of images of the final evaluation; None: all.
    parts: the parts of `fixed`: name → seconds.
    """

    fixed: float
    step: float
    evaluation: float = 0.0
    evaluation_steps: int = 0
    final_images: int | None = None
    parts: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def parts_text(self) -> str:
        """The parts of half a second or more, as in "baselines 40 s, whitening 3 s"."""
        return ", ".join(f"{what} {seconds:,.0f} s" for what, seconds in self.parts.items() if seconds >= 0.5)

    @property
    def step_text(self) -> str:
        """Seconds of a step to two digits, as in "0.12 s"."""
        return f"{float(f'{self.step:.2g}'):g} s"

    def rest_text(self, steps: int, spent: float) -> str:
        """The costs of a run besides its steps, as text.

        steps: steps of the run. spent: seconds from the start of the command until now.
        """
        evaluations = self.seconds(steps) - self.fixed - steps * self.step
        during = f"evaluations during the training {evaluations:,.0f} s" if evaluations >= 0.5 else ""
        return ", ".join(filter(None, [f"until now {spent:,.0f} s", self.parts_text, during]))

    def seconds(self, steps: int) -> float:
        """The cost of a run of `steps` steps."""
        evaluations = steps // self.evaluation_steps if self.evaluation_steps else 0
        return self.fixed + steps * self.step + evaluations * self.evaluation

    def fitting_steps(self, seconds: float) -> int:
        """The largest number of steps, at least 0, that a run can do in `seconds`."""
        left = seconds - self.fixed
        if left < self.step:
            return 0
        if not self.evaluation_steps:
            return int(left / self.step)
        # The rest of the time is too short for another period with its evaluation: it ends a step before.
        periods, rest = divmod(left, self.evaluation_steps * self.step + self.evaluation)
        return int(periods) * self.evaluation_steps + min(int(rest / self.step), self.evaluation_steps - 1)


def recall_epochs(config: PretrainConfig, before: dict[str, Any] | None) -> PretrainConfig:
    """Takes over `epochs` and `final_images` from the earlier run in `workdir`, which had the same `minutes`.

    A configuration with the epochs of that run and without `minutes`, such as its config.flags, gets
    `minutes` instead.

    before: the description of the earlier run (`Workdir.description`); None for a new folder.
    """
    chosen = {name: (before or {}).get(name) for name in ("minutes", "epochs")}
    if not all(isinstance(value, int | float) for value in chosen.values()):
        return config
    name = "epochs" if config.minutes is None else "minutes"
    if getattr(config, name) != chosen[name]:
        return config
    if config.final_images is None:
        chosen["final_images"] = (before or {}).get("final_images")
    return dataclasses.replace(config, **chosen)


def trial(config: PretrainConfig) -> PretrainConfig:
    """The configuration of the run whose steps are timed for `minutes`."""
    return dataclasses.replace(config, epochs=TRIAL_EPOCHS)


def choose_epochs(
    config: PretrainConfig, costs: Costs, seconds: float, images: int, first_step: int = 0
) -> PretrainConfig:
    """The configuration with the number of epochs that fit into the rest of `minutes`.

    Args:
        config: a configuration that `needs_timing`.
        costs: costs of the run.
        seconds: rest of `minutes`.
        images: number of images in an epoch.
        first_step: step at which the run begins.

    Raises:
        UserError: fewer than MIN_STEPS fit; or the number of epochs contradicts another option in epochs,
            such as `warmup_epochs`.
    """
    steps, minutes = costs.fitting_steps(seconds), config.minutes or 0.0
    if steps < MIN_STEPS:
        raise too_short(config, costs, seconds)
    epochs = epochs_for_steps(first_step + steps, images, config.batch_size)
    chosen = dataclasses.replace(config, epochs=epochs, final_images=costs.final_images)
    try:
        chosen.check_epochs()
    except UserError as error:
        raise UserError(
            f"minutes={minutes:g}: is enough for {counted(steps, 'step', form=',')}. {error}"
        ) from error
    return chosen


def too_short(config: PretrainConfig, costs: Costs, seconds: float) -> UserError:
    """The error of a run whose `minutes` are too short; its message lists the costs and how to lower them.

    seconds: rest of `minutes`.
    """
    minutes = config.minutes or 0.0
    missing, spent = costs.seconds(MIN_STEPS) - seconds, 60 * minutes - seconds
    parts = ", ".join(filter(None, [f"until now {spent:,.0f} s", costs.parts_text]))
    cheaper = [f"a smaller `image_size` than {config.image_size}"] if config.image_size else []
    cheaper = cheaper or ["smaller views (`image_size`)"]
    if config.monitor != "none":
        cheaper += ["fewer `knn_images`"] if config.knn_images > MIN_KNN_IMAGES else []
        cheaper += ["fewer `final_images`"] if config.final_images != 0 else []
        cheaper += ["monitor=none, which leaves out baselines and evaluations"]
    if config.finish != "none":
        cheaper.append("finish=none, without whitening")
    return UserError(
        f"minutes={minutes:g}: is too short for {MIN_STEPS} steps: a step takes {costs.step_text}, "
        f"start, evaluations and export about {spent + costs.fixed:.0f} s ({parts}). Pass "
        f"minutes={math.ceil(10 * minutes + missing / 6) / 10:g} or more, or make the run cheaper: "
        f"{'; '.join(cheaper)}."
    )


def epochs_for_steps(steps: int, images: int, batch_size: int) -> float:
    """A number of epochs that has `steps` ≥ 1 steps (`sampling.steps_in`), with the fewest decimals.

    It is never the default of `epochs`: with `minutes`, that would mean that no epochs were given.
    """
    exact = steps * batch_size / images
    for decimals in range(2, 12):
        epochs = math.ceil(exact * 10**decimals) / 10**decimals
        if sampling.steps_in(epochs, images, batch_size) == steps and _counts_as_given(epochs):
            return epochs
    while sampling.steps_in(exact, images, batch_size) < steps or not _counts_as_given(exact):
        exact = math.nextafter(exact, math.inf)
    return exact


def _counts_as_given(epochs: float) -> bool:
    """Whether a configuration with `minutes` takes this number of epochs for one that was given."""
    return not PretrainConfig(minutes=1.0, epochs=epochs).needs_timing
