"""Each state of a run is called by its name, from curves of its shape."""

import numpy as np
import pytest

from simsiam_tf.diagnosis import ADVICE, Diagnoser, diagnose


def records(loss, std, rank=None, spread=0.01, every=20):
    rank = np.full(len(loss), 30.0) if rank is None else rank
    return [
        {"step": every * (i + 1), "loss": float(a), "std": float(b), "rank": float(r), "loss_spread": spread}
        for i, (a, b, r) in enumerate(zip(loss, std, rank, strict=True))
    ]


FALL = -0.9 * (1 - np.exp(-np.arange(20) / 4))
ONES = np.ones(20)


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
        ("healthy", records(FALL, 0.94 * ONES, rank=2.34 * ONES)),
        ("divergence", records(np.where(np.arange(20) == 19, np.nan, FALL), ONES)),
        ("partial collapse", records(FALL, 0.9 * ONES, rank=np.linspace(60, 5, 20))),
        ("non-convergence", records(-0.02 * ONES, 0.99 * ONES)),
        ("oscillation", records(FALL, 0.9 * ONES, spread=0.3)),
    ],
)
def test_names(name, curves):
    assert diagnose(curves, total_steps=400).name == name


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


def test_every_unhealthy_name_has_advice_that_names_a_flag():
    assert all("--" in advice for name, advice in ADVICE.items() if name != "healthy")


def test_advice_is_for_the_kind_of_loss():
    nan = [{"step": 1, "loss": float("nan"), "loss_spread": 0.0, "std": 1.0, "rank": 5.0}]
    assert "swav" in diagnose(nan, 10, "contrast").advice
    assert "swav" not in diagnose(nan, 10).advice and diagnose(nan, 10).name == "divergence"
    flat = [{"step": s, "loss": 5.0, "loss_spread": 0.0, "std": 0.01, "rank": 5.0} for s in range(3)]
    assert "--predictor" in diagnose(flat, 10).advice
    assert "--predictor" not in diagnose(flat, 10, "contrast").advice


def test_a_run_that_goes_on_is_judged_as_all_of_its_records():
    """Against the medians of the last third, worked out anew each time."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 150
        rank = np.abs(rng.normal(20, 15, n)) + rng.choice([0, 10])
        curves = records(
            rng.choice([-1, 0]) * np.arange(n) / n + rng.normal(0, 0.2, n), np.full(n, 0.9), rank
        )
        for r in curves:
            r["loss_spread"] = float(rng.choice([0.05, 0.11]))
        growing = Diagnoser(3000)
        start = rng.integers(1, 60)  # a run that continues begins with many
        for count in (*range(start, 100), *range(100, n + 1, 7)):
            found = growing.of(curves[:count])
            assert found == diagnose(curves[:count], 3000)
            tail = curves[:count][-max(3, count // 3) :]
            if found.name == "oscillation":
                assert f"{np.median([r['loss_spread'] for r in tail]):.2f}" in found.reason
            if found.name == "partial collapse":
                low, peak = np.median([r["rank"] for r in tail]), max(r["rank"] for r in curves[:count])
                assert found.reason == f"effective rank {low:.1f}, {peak:.1f} at its peak"


def test_a_new_record_costs_what_it_costs_however_many_came_before():
    class Counted(dict):
        read = 0

        def __getitem__(self, key):
            Counted.read += 1
            return super().__getitem__(key)

    curves = [Counted(r) for r in records(-0.9 * np.ones(3000), np.ones(3000))]
    diagnoser, costs = Diagnoser(1000), []
    for count in range(10, 3000):
        Counted.read = 0
        diagnoser.of(curves[:count])
        costs.append(Counted.read)
    assert max(costs[1000:]) <= max(costs[100:200]) < 60
