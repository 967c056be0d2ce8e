"""The ring of recent contexts."""

from collections.abc import Sequence

import numpy as np
import pytest

from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.regressors.types import Matrix, Rows, Table
from tollway.policies.types import Context

HERE = Context((0.0,))


def window_of(rows: int) -> RecentContexts:
    return RecentContexts(rows, RidgeRegressor().table(rows))


def seen(table: Table, rows: Rows, arms: Sequence[str]) -> Matrix:
    assert rows == [1, 2]
    return np.full((2, len(arms)), 0.7)


def test_the_oldest_rows_give_way() -> None:
    window = window_of(3)
    for at in range(5):
        window.add(Context((float(at),)), ("a",), [at / 10], [1.0])

    assert sorted(window.tables()[0][:, 0]) == pytest.approx([0.2, 0.3, 0.4])
    assert [context.dense[0] for context in window.contexts] == [3.0, 4.0, 2.0]


def test_an_arm_that_was_not_offered_is_never_the_best() -> None:
    window = window_of(4)

    assert window.add(HERE, ("a",), [0.5], [1.0])
    assert window.add(HERE, ("b", "a"), [0.9, 0.4], [2.0, 1.0])
    assert not window.add(HERE, ("b",), [0.8], [2.0])

    qualities, _ = window.tables()
    assert window.arms == ("a", "b")
    assert qualities.tolist() == [[0.5, -np.inf], [0.4, 0.9], [-np.inf, 0.8]]


def test_a_new_prediction_leaves_out_arms_not_offered_and_old_rows() -> None:
    window = window_of(4)
    for _ in range(2):
        window.add(HERE, ("a",), [0.5], [1.0])
    window.add(HERE, ("a", "b"), [0.5, 0.5], [1.0, 1.0])

    window.revalue(seen, newest=2)

    assert window.tables()[0].tolist() == [[0.5, -np.inf], [0.7, -np.inf], [0.7, 0.7]]


def test_a_new_price_is_taken_over_in_every_row() -> None:
    window = window_of(4)
    window.add(HERE, ("a", "b"), [0.5, 0.5], [1.0, 2.0])

    window.reprice("b", 0.5)
    window.reprice("never-seen", 0.5)

    assert window.tables()[1].tolist() == [[1.0, 1.0]]


def test_quotes_that_have_changed_move_those_before() -> None:
    window = window_of(60)
    for at in range(70):
        window.add(HERE, ("a", "b"), [0.5, 0.5], [1.0, 8.0 if at < 60 else 0.5])

    assert window.requote()
    assert window.tables()[1] == pytest.approx(np.tile([1.0, 0.5], (60, 1)))
    assert not window.requote()


def test_quotes_that_differ_by_request_are_left_alone() -> None:
    window = window_of(200)
    draws = np.random.default_rng(0).lognormal(0.0, 1.5, 1000).tolist()

    for cost in draws:
        window.add(HERE, ("a",), [0.5], [cost])
        assert not window.requote()
    assert sorted(window.tables()[1][:, 0]) == sorted(draws[-200:])


def test_quotes_of_an_arm_that_was_not_offered_lately_or_is_free_are_left_alone() -> None:
    window = window_of(60)
    for at in range(80):
        if at < 75:
            window.add(HERE, ("a", "b"), [0.5, 0.5], [0.0, 8.0 if at < 65 else 1.0])
        else:
            window.add(HERE, ("a",), [0.5], [3.0])
    before = window.tables()[1].copy()

    assert not window.requote()
    assert window.tables()[1].tolist() == before.tolist()


def test_few_contexts_are_left_alone() -> None:
    window = window_of(60)
    assert not window.requote()
    for at in range(49):
        window.add(HERE, ("a",), [0.5], [1.0 if at < 39 else 9.0])

    assert not window.requote()
