"""Each state of a run is diagnosed by curves of its shape."""

import dataclasses
import re

import numpy as np
import pytest

from simsiam_tf.config import PretrainConfig, with_method_defaults
from simsiam_tf.evaluate.advice import ADVICE, advice
from simsiam_tf.evaluate.diagnosis import LIMITS, MAX_RECORDS, Diagnosis, check_features, diagnose


def records(loss, std, rank=None, spread=0.01, every=20):
    rank = np.full(len(loss), 30.0) if rank is None else rank
    return [
        {"step": every * (i + 1), "loss": float(a), "std": float(b), "rank": float(r), "loss_spread": spread}
        for i, (a, b, r) in enumerate(zip(loss, std, rank, strict=True))
    ]


FALL = -0.9 * (1 - np.exp(-np.arange(20) / 4))
ONES = np.ones(20)
# Measured at the small scale of `scripts.paper.reproduce`, each third record: --predictor=fixed and --bn=all.
FIXED = records(
    [-0.06, -0.19, -0.2, -0.24, -0.24, -0.24, -0.22, -0.22, -0.22, -0.24, -0.24, -0.24, -0.28, -0.27, -0.27,
     -0.28, -0.28, -0.28, -0.28, -0.3],
    [0.99, 0.9, 0.86, 0.85, 0.81, 0.83, 0.82, 0.84, 0.83, 0.83, 0.82, 0.83, 0.82, 0.81, *[0.8] * 6],
    [6.86, 2.41, 2.18, 1.74, 1.59, 1.61, 2.17, 2.27, 1.68, 1.57, 1.47, 1.77, 1.75, 1.73, 1.58, 1.65, 1.7,
     1.54, 1.51, 1.64],
    every=60,
)  # fmt: skip
QUICKSTART_FIXED = records(  # where z shrinks onto a line
    [-0.08, -0.17, -0.19, -0.26, -0.29, -0.29, -0.22, -0.23, -0.26, -0.26, -0.26, -0.23, -0.24, -0.26, -0.32,
     -0.28, -0.29, -0.3, -0.3, -0.3, -0.31, -0.27, -0.32],
    [0.98, 0.87, 0.73, 0.77, 0.79, 0.78, 0.69, 0.7, 0.7, 0.71, 0.64, 0.64, 0.62, 0.66, 0.6, 0.67, 0.71, 0.65,
     0.67, 0.68, 0.59, 0.66, 0.65],
    [4.42, 1.87, 1.7, 1.62, 1.63, 1.34, 1.42, 1.37, 1.52, 1.32, 1.19, 1.16, 1.4, 1.28, 1.12, 1.15, 1.24, 1.13,
     1.13, 1.13, 1.15, 1.1, 1.21],
    every=60,
)  # fmt: skip
BN_ALL = records(
    [-0.27, -0.68, -0.79, -0.84, -0.88, -0.9, -0.91, -0.91, *[-0.92] * 4, *[-0.93] * 8], ONES,
    [8.36, 4.88, 4.64, 4.1, 4.01, 3.93, 4.23, 4.77, 5.12, 5.39, 5.91, 6.3, 6.64, 7.04, 7.0, 7.08, 7.38,
     7.57, 7.76, 7.67],
    every=60,
)  # fmt: skip
# 64 pictures that differ by noise alone, some one grey: --flagfile=flags/quickstart.cfg, resnet10, batch 16.
ALIKE = records([-0.05, -0.08, *[-0.11] * 18], 0.985 * ONES, 7 * ONES)
GREY = records([-0.08, -0.19, *[-0.26] * 8, *[-0.3] * 10], 0.93 * ONES, 3.5 * ONES)


@pytest.mark.parametrize(
    ("name", "curves"),
    [
        ("healthy", records(FALL, 0.9 * ONES)),
        ("healthy", records(FALL, np.where(np.arange(20) == 3, 0.05, 0.9))),  # one dip is no collapse
        ("collapse", records(-ONES, np.exp(-np.arange(20.0)))),
        # Measured: Fashion-MNIST without stop-gradient, and with it.
        (
            "collapse",
            records(np.full(5, -0.98), [0.93, 0.84, 0.67, 0.67, 0.66], [1.8, 1.5, 1.44, 1.49, 1.45]),
        ),
        # The same, later, when what is left is noise in more directions than one.
        (
            "collapse",
            records(np.full(5, -0.98), [0.17, 0.15, 0.15, 0.13, 0.13], [2.38, 1.96, 2.56, 2.17, 2.24]),
        ),
        ("healthy", records(FALL, 0.94 * ONES, rank=2.34 * ONES)),
        # MoCo at its small scale begins with one embedding for all, whose rank is that of noise.
        ("healthy", records(FALL, np.arange(20) / 20, np.where(np.arange(20) < 2, 8.0, 2.5))),
        ("divergence", records(np.where(np.arange(20) == 19, np.nan, FALL), ONES)),
        ("partial collapse", records(FALL, 0.9 * ONES, rank=np.linspace(60, 5, 20))),
        ("non-convergence", records(-0.02 * ONES, 0.99 * ONES)),
        ("oscillation", records(FALL, 0.9 * ONES, spread=0.3)),
        ("healthy", BN_ALL),
        ("healthy", records(0.6 * FALL, 0.9 * ONES)),  # ends at −0.53
        ("healthy", records(np.linspace(0, -0.45, 20), 0.9 * ONES)),  # slow, and not at its end
        # A newcomer's 470 steps: −0.394 in the middle third, −0.477 in the last.
        ("healthy", records(np.interp(np.arange(20), [0, 10, 19], [-0.15, -0.394, -0.5]), 0.95 * ONES)),
        ("non-convergence", ALIKE),
        ("non-convergence", GREY),
    ],
)
def test_diagnoses_by_curves(name, curves):
    assert diagnose(curves, total_steps=400).name == name
    # BYOL's loss is another unit of the same: ‖p̄1 − z̄2‖² + ‖p̄2 − z̄1‖² = 4 + 4 L.
    squares = [{**r, "loss": 4 + 4 * r["loss"], "loss_spread": 4 * r["loss_spread"]} for r in curves]
    assert diagnose(squares, total_steps=400, loss_type="distance").name == name


@pytest.mark.parametrize("loss_type", LIMITS)
def test_embeddings_on_a_line_are_not_healthy_even_if_they_always_were(loss_type):
    """Whatever the loss is, such as that of a method of the user's."""
    loss = np.linspace(LIMITS[loss_type].high or 5, -0.95, 20)
    assert diagnose(records(loss, ONES, 1.6 * ONES), 400, loss_type).healthy
    found = diagnose(records(loss, ONES, 1.4 * ONES), 400, loss_type)
    assert found.name == "partial collapse" and found.reason.startswith("effective rank 1.4")
    assert "`base_lr`" in found.advice


def test_collapse_is_called_early_but_non_convergence_is_not():
    flat = records(np.full(3, -1.0), np.full(3, 0.01))
    assert diagnose(flat, total_steps=10**6).name == "collapse"
    assert diagnose(flat[:2], total_steps=10**6).healthy
    dip = records(FALL, np.where(np.arange(20) == 19, 0.05, 0.9))
    assert diagnose(dip, total_steps=400).healthy
    slow = records(np.full(10, -0.02), np.full(10, 0.99))
    assert diagnose(slow, total_steps=10**6).healthy
    handful = records(np.full(5, -0.02), np.full(5, 0.99), every=1)
    assert diagnose(handful, total_steps=5).healthy
    assert diagnose([], total_steps=10).healthy
    assert str(diagnose([], total_steps=10)) == "none: no record yet."


@pytest.mark.parametrize("curves", [FIXED, QUICKSTART_FIXED], ids=["small", "quickstart"])
@pytest.mark.parametrize("kept", range(8, 21))
def test_a_fixed_predictor_is_non_convergence_from_the_first_diagnosis_to_the_last(curves, kept):
    """Its loss falls by 0.2 in all, and its rank to a quarter: neither is learning, nor a collapse."""
    found = diagnose(curves[:kept], total_steps=1250)
    assert found.name == "non-convergence" and not found.alike, found


@pytest.mark.parametrize(
    ("alike", "curves"),
    [
        (True, ALIKE),
        (True, GREY),
        (True, records(-0.99 * ONES, 0.05 * ONES)),  # without BN: a collapse from the first record on
        (False, FIXED),  # z is spread by image, as far as it goes
        (False, records(np.linspace(-0.3, -1, 20), np.linspace(0.9, -0.1, 20).clip(0.05))),  # later
        (False, BN_ALL),
    ],
)
def test_nearly_alike_images_are_suggested_where_the_metrics_allow(alike, curves):
    found = diagnose(curves, total_steps=400)
    assert found.alike == alike and found.healthy == (curves is BN_ALL)
    assert ("nearly alike: `preview` shows some" in found.advice) == alike


class Counted(dict):
    """A record that counts how often it is read."""

    reads = 0

    def __getitem__(self, key):
        Counted.reads += 1
        return super().__getitem__(key)


@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("healthy", lambda t: (-0.9 * (1 - np.exp(-8 * t)), 30)),
        ("non-convergence", lambda t: (-0.25 * (1 - np.exp(-8 * t)), 30)),
        ("partial collapse", lambda t: (-0.9 * (1 - np.exp(-8 * t)), 60 - 50 * t)),
    ],
)
def test_a_long_run_is_diagnosed_as_fast_as_a_short_one_and_alike(name, curve):
    for count in (MAX_RECORDS, 50 * MAX_RECORDS + 7):
        t = np.linspace(0, 1, count)
        loss, rank = curve(t)
        long = [Counted(r) for r in records(loss, 0.9 + 0 * t, rank + 0 * t, every=1)]
        Counted.reads = 0
        assert diagnose(long, total_steps=count).name == name
        assert Counted.reads < 10 * MAX_RECORDS


def test_every_unhealthy_name_has_advice_that_names_an_option():
    assert all("=" in advice or "`" in advice for name, advice in ADVICE.items() if name != "healthy")


def test_advice_depends_on_the_loss():
    nan = [{"step": 1, "loss": float("nan"), "loss_spread": 0.0, "std": 1.0, "rank": 5.0}]
    assert "swav" in diagnose(nan, 10, "contrast").advice
    assert "swav" not in diagnose(nan, 10).advice and diagnose(nan, 10).name == "divergence"
    flat = [{"step": s, "loss": 5.0, "loss_spread": 0.0, "std": 0.01, "rank": 5.0} for s in range(3)]
    assert "predictor=" in diagnose(flat, 10).advice
    assert "predictor=" not in diagnose(flat, 10, "contrast").advice


def options(**changes):
    return with_method_defaults({**dataclasses.asdict(PretrainConfig()), **changes})


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "collapse",
            {"stop_gradient": False},
            "This run has stop_gradient=false: every run without stop-",
        ),
        ("collapse", {"predictor": "none"}, "This run has predictor=none: without a predictor"),
        ("non-convergence", {"predictor": "fixed"}, "This run has predictor=fixed: with a fixed predictor"),
        ("oscillation", {"bn": "all"}, "This run has bn=all: BN on the predictor's output"),
    ],
)
def test_the_setting_of_the_run_that_causes_it_comes_first_and_alone(name, changes, said):
    text = advice(name, options=options(base_lr=0.4, **changes))
    assert said in text and text.index("This run has") < text.index("Try a")
    assert text.count("This run has") == 1 and "Leave it out" in text and "than 0.4" in text
    innocent = advice(name, options=options(base_lr=0.4))
    assert "This run has" not in innocent and "Check the options" not in innocent
    assert next(iter(changes)) in advice(name), "without options all that could be are named"
    both = advice("collapse", options=options(stop_gradient=False, bn="none"))
    assert both.count("This run has") == 2 and "Leave them out" in both


def test_other_methods_are_not_blamed_for_what_is_theirs():
    """SimCLR has neither stop-gradient nor predictor, SimSiam with a moving average no predictor."""
    simclr = options(method="simclr")
    assert simclr["stop_gradient"] is False and "bn" not in simclr
    assert "This run has" not in advice("collapse", "contrast", options=simclr)
    assert "This run has" not in advice("collapse", options=options(average=0.8, predictor="none"))
    assert "This run has" not in advice("collapse", "distance", options=options(method="byol"))


@pytest.mark.parametrize(
    ("epochs", "warmup", "said"),
    [
        (100.0, 0.0, "warmup_epochs=10"),
        (800.0, 0.0, "warmup_epochs=10"),
        (3.0, 0.0, "warmup_epochs=0.3"),
        (3.0, 0.3, "a longer warm-up than warmup_epochs=0.3"),
    ],
)
def test_a_warm_up_is_advised_that_fits_the_run(epochs, warmup, said):
    found = options(epochs=epochs, warmup_epochs=warmup)
    for name in ("oscillation", "non-convergence", "divergence"):
        assert re.search(rf"{said}\b", advice(name, options=found))
        dataclasses.replace(PretrainConfig(epochs=epochs, warmup_epochs=min(10.0, epochs / 10))).validate()
    assert "{" not in "".join(advice(name, loss) for name in ADVICE for loss in LIMITS)


def test_nothing_is_advised_that_the_run_has():
    assert "precision=float32" in advice("divergence", options=options(epochs=5.0))
    text = advice("divergence", options=options(precision="float32", epochs=5.0))
    assert "float32" not in text and "than 0.05, or warmup_epochs=0.5; the last" in text
    assert "float32" not in advice("divergence", "contrast", options=options(precision="float32"))
    assert "crop_area" in advice("partial collapse", options=options(crop_area=0.6))
    text = advice("partial collapse", options=options(crop_area=0.2))
    assert "crop_area" not in text and "a wider `d` or less `weight_decay`" in text


CURVE = records(FALL, 0.94 * ONES, every=5)


def test_features_that_are_constant_at_inference_are_no_healthy_run():
    """Batch statistics spread z, but moving averages that have not settled give all images one feature."""
    healthy = diagnose(CURVE, total_steps=100)
    assert healthy.healthy and check_features(healthy, CURVE, 100, 0.4).healthy
    assert check_features(healthy, CURVE, 100, None).healthy
    found = check_features(healthy, CURVE, 100, 1e-4, (0.999, 0.999**200))
    assert found.name == "constant features"
    assert "at momentum 0.999 they keep 82% of their initial values after 100 steps" in found.reason
    assert "train longer" in found.advice and "moving averages" in found.advice
    assert "momentum" not in check_features(healthy, CURVE, 100, 1e-4).reason
    early = records(FALL[:3], 0.94 * ONES[:3], every=5)
    assert check_features(healthy, early, 100, 1e-4).healthy, "averages settle later"
    collapse = Diagnosis("collapse", "std 0")
    assert check_features(collapse, CURVE, 100, 1e-4) == collapse


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"method": "barlow", "loss_factor": 1.0}, 1 / 0.024),
        ({"method": "vicreg", "variance_weight": 250.0}, 10),
    ],
)
def test_the_limits_of_a_loss_follow_its_weights(changes, factor):
    """A loss that is multiplied by a weight falls and varies by as much more."""
    usual = options(method=changes["method"])
    for spread, fall in ((0.1, 1.0), (3.0, 1.0), (0.1, 0.05)):
        curve = records(np.linspace(5, 5 - fall, 20), 0.9 * ONES)
        curve = [{**r, "loss_spread": spread} for r in curve]
        scaled = [{**r, "loss": factor * r["loss"], "loss_spread": factor * spread} for r in curve]
        name = diagnose(curve, 400, "redundancy", usual).name
        assert diagnose(scaled, 400, "redundancy", options(**changes)).name == name
        assert name == ("oscillation" if spread > 2 else "healthy" if fall > 0.1 else "non-convergence")


def test_advice_names_no_option_that_the_method_refuses_and_none_that_the_run_has():
    assert "`queue`" not in advice("collapse", "contrast", options=options(method="simclr"))
    assert "`queue`" in advice("collapse", "contrast", options=options(method="moco"))
    assert "crop_area" not in advice("partial collapse", options=options())
    assert "crop_area" in advice("partial collapse", options=options(crop_area=0.5))
    assert "crop_area" in advice("partial collapse")
