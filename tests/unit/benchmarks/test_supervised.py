"""Routers that the routing benchmark trains on the first part of a stream, and its yardsticks."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))

from choosing import cascade_values, supervised  # noqa: E402
from choosing.figures import Effort  # noqa: E402
from choosing.tables import Table  # noqa: E402

QUIET = Effort(2, lambda line: None)
HARD = np.arange(200) % 2


def table() -> Table:
    """Return a table where the dear arm is needed for every other request, as its number says."""
    quality = np.stack([1.0 - HARD, np.ones(200)], axis=1)
    return Table("t", ["cheap", "dear"], quality, np.tile([1.0, 11.0], (200, 1)),
                 np.array(["g"] * 200), numbers=HARD[:, None].astype(float))  # fmt: skip


def services() -> Table:
    """Return the same, where the cheap service's confidence says it."""
    one = table()
    one.said = np.tile(["yes", "no"], (200, 1))
    one.sure = np.stack([1.0 - 0.5 * HARD, np.ones(200)], axis=1)
    return one


def orders() -> list[np.ndarray]:
    return [np.random.default_rng(seed).permutation(200) for seed in range(2)]


def test_a_trained_threshold_asks_the_dear_arm_where_it_is_needed() -> None:
    one = table()

    records = supervised.threshold(one, one.numbers, orders(), 100, budget=6.0)

    for record in records:
        assert record.quality.mean() > 0.9
        assert record.spend == pytest.approx(1.0, abs=0.15)


def test_a_budget_below_the_dear_arm_is_a_mix_and_above_it_the_best_arm() -> None:
    quality, cost = np.array([0.5, 0.4, 1.0]), np.array([1.0, 2.0, 11.0])

    assert supervised.best_pair(quality, cost, 6.0) == (0, 2, 0.5)
    assert supervised.best_pair(quality, cost, 12.0) == (2, 2, 0.0)
    assert supervised.best_pair(quality, cost, 0.5)[0] == 0


def test_the_yardstick_with_every_label_is_ahead_of_the_one_with_one_each() -> None:
    one = table()

    rows = list(supervised.yardstick(one, one, one.numbers, orders(), 100, [6.0], QUIET))

    every, single = (row["quality"] for row in rows)
    assert every == pytest.approx(1.0, abs=0.03)
    assert single <= every


def test_frugalml_asks_on_where_the_first_reply_is_unsure() -> None:
    for record in supervised.frugalml(services(), orders(), 100, budget=7.0):
        assert record.quality.mean() > 0.95
        assert record.spend == pytest.approx(1.0, abs=0.25)


def test_the_best_threshold_in_hindsight_knows_which_replies_are_wrong() -> None:
    quality, cost = cascade_values.best_threshold(services(), np.arange(200), 1, usd=50.0)

    assert quality == pytest.approx(1.0)
    assert cost == pytest.approx(1.0 + 0.5 * 11.0)
