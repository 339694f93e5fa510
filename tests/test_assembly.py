"""What flags say is what the parts get."""

import pytest

from simsiam_tf import assembly, cli
from simsiam_tf.config import PretrainConfig


def parse(*argv):
    return cli.parse(PretrainConfig, ["--data=digits", *argv])


@pytest.mark.parametrize(
    ("argv", "encoder", "predictor"),
    [
        ([], (0.1, 0.05), (0.1, 0.05)),
        (["--predictor_lr=constant"], (0.1, 0.05), (0.1, 0.1)),
        (["--predictor_lr_factor=3"], (0.1, 0.05), (0.3, 0.15)),
        (["--predictor_lr=constant", "--predictor_lr_factor=3"], (0.1, 0.05), (0.3, 0.3)),
        (["--warmup_epochs=5", "--epochs=15"], (0.0, 0.05), (0.0, 0.05)),
    ],
)
def test_rates_at_the_first_and_the_middle_step(argv, encoder, predictor):
    """lr 0.05 × 512/256 on a cosine over ten steps: half of it is left at the fifth."""
    steps = 15 if "--warmup_epochs=5" in argv else 10
    sgd = assembly.build_optimizer(parse(*argv), total_steps=steps, size=512)
    middle = steps - 5
    h = sgd.overrides.get("predictor", sgd._learning_rate)
    for rate, expected in ((sgd._learning_rate, encoder), (h, predictor)):
        assert [float(rate(s)) for s in (0, middle)] == pytest.approx(expected, abs=1e-6)


def test_the_recipe_takes_the_flags():
    argv = ["--jitter=0.8", "--crop_area=0.6", "--blur_p=0.25", "--flip_p=0", "--image_size=12"]
    source, views = assembly.open_data(parse(*argv, "--batch_size=64"))
    recipe = views.recipe
    assert recipe.jitter == (0.8, 0.8, 0.8, 0.2) and recipe.area == (0.6, 1.0)
    assert (recipe.blur_p, recipe.flip_p, recipe.size) == (0.25, 0.0, 12)
    _, views = assembly.open_data(parse("--batch_size=64"))
    assert views.recipe.jitter == (0.4, 0.4, 0.4, 0.1) and views.recipe.size == 8
