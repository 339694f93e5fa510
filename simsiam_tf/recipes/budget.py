"""The option `minutes`: chooses the epochs, and the images of the final evaluation, that fit into it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import sampling
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

TRIAL_EPOCHS = 1e6  # of the run whose steps are timed: more than any training takes
LEAST_STEPS = 10  # fewer are refused
LEAST_KNN_IMAGES = 100  # that the option `knn_images` takes


@dataclasses.dataclass
class Costs:
    """Seconds of what is left of a run once its steps have been timed.

    fixed: all that does not depend on the number of steps: building the model anew, tracing, the export, the
        final evaluation; parts: what it is made of, in words → seconds.
    step: a training step. evaluation: an evaluation during the training. every: steps from one evaluation to
    the next; 0 for none. final_images: number of images of the final evaluation; None: all.
    """

    fixed: float
    step: float
    evaluation: float = 0.0
    every: int = 0
    final_images: int | None = None
    parts: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def parts_text(self) -> str:
        """The parts of half a second or more, as in "baselines 40 s, whitening 3 s"."""
        return ", ".join(f"{what} {seconds:,.0f} s" for what, seconds in self.parts.items() if seconds >= 0.5)

    @property
    def step_text(self) -> str:
        """Seconds of a step with two digits."""
        return f"{float(f'{self.step:.2g}'):g} s"

    def rest_text(self, steps: int, spent: float) -> str:
        """All that the time of a run goes into besides its steps, in words. spent: seconds until now."""
        evaluations = self.seconds(steps) - self.fixed - steps * self.step
        during = f"evaluations during the training {evaluations:,.0f} s" if evaluations >= 0.5 else ""
        return ", ".join(filter(None, [f"until now {spent:,.0f} s", self.parts_text, during]))

    def seconds(self, steps: int) -> float:
        """The seconds of a run of so many steps."""
        evaluations = steps // self.every if self.every else 0
        return self.fixed + steps * self.step + evaluations * self.evaluation

    def fitting_steps(self, seconds: float) -> int:
        """The largest number of steps whose run takes at most `seconds`, at least 0."""
        left = seconds - self.fixed
        if left < self.step:
            return 0
        if not self.every:
            return int(left / self.step)
        # Between two evaluations the number of steps is that of the time, or the last before the second.
        periods, rest = divmod(left, self.every * self.step + self.evaluation)
        return int(periods) * self.every + min(int(rest / self.step), self.every - 1)


def recall(config: PretrainConfig, before: dict[str, Any] | None) -> PretrainConfig:
    """The configuration with what the run in its folder has chosen for the same `minutes`.

    A configuration with these epochs and without `minutes`, as in the folder's config.flags, gets `minutes`.

    before: the description of the run (`Workdir.description`); None for a new folder.
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
    """The configuration with the epochs whose steps fit into the time that is left of `minutes`.

    Args:
        config: a configuration that `needs_timing`.
        costs: what the run takes.
        seconds: what is left of `minutes`.
        images: number of images in an epoch.
        first_step: step at which the run begins.

    Raises:
        UserError: fewer than LEAST_STEPS fit, or options in epochs do not go together with the number.
    """
    steps, minutes = costs.fitting_steps(seconds), config.minutes or 0.0
    if steps < LEAST_STEPS:
        raise too_short(config, costs, seconds)
    epochs = epochs_of(first_step + steps, images, config.batch_size)
    chosen = dataclasses.replace(config, epochs=epochs, final_images=costs.final_images)
    try:
        chosen.check_epochs()
    except UserError as error:
        raise UserError(
            f"minutes={minutes:g}: is enough for {counted(steps, 'step', form=',')}. {error}"
        ) from error
    return chosen


def too_short(config: PretrainConfig, costs: Costs, seconds: float) -> UserError:
    """The error of a run whose `minutes` do not suffice: what its parts cost, and what would be cheaper.

    seconds: what is left of `minutes`.
    """
    minutes = config.minutes or 0.0
    missing, spent = costs.seconds(LEAST_STEPS) - seconds, 60 * minutes - seconds
    parts = ", ".join(filter(None, [f"until now {spent:,.0f} s", costs.parts_text]))
    cheaper = [f"a smaller `image_size` than {config.image_size}"] if config.image_size else []
    cheaper = cheaper or ["smaller views (`image_size`)"]
    if config.monitor != "none":
        cheaper += ["fewer `knn_images`"] if config.knn_images > LEAST_KNN_IMAGES else []
        cheaper += ["fewer `final_images`"] if config.final_images != 0 else []
        cheaper += ["monitor=none, which leaves out baselines and evaluations"]
    if config.finish != "none":
        cheaper.append("finish=none, without whitening")
    return UserError(
        f"minutes={minutes:g}: is too short for {LEAST_STEPS} steps: a step takes {costs.step_text}, "
        f"start, evaluations and export about {spent + costs.fixed:.0f} s ({parts}). Pass "
        f"minutes={math.ceil(10 * minutes + missing / 6) / 10:g} or more, or make the run cheaper: "
        f"{'; '.join(cheaper)}."
    )


def epochs_of(steps: int, images: int, batch_size: int) -> float:
    """The number of epochs with the fewest decimals for which `sampling.steps_in` gives `steps`, from 1 on.

    It is never the default of `epochs`, which with `minutes` stands for no value.
    """
    exact = steps * batch_size / images
    for decimals in range(2, 12):
        epochs = math.ceil(exact * 10**decimals) / 10**decimals
        if sampling.steps_in(epochs, images, batch_size) == steps and _is_value(epochs):
            return epochs
    while sampling.steps_in(exact, images, batch_size) < steps or not _is_value(exact):
        exact = math.nextafter(exact, math.inf)
    return exact


def _is_value(epochs: float) -> bool:
    return not PretrainConfig(minutes=1.0, epochs=epochs).needs_timing
