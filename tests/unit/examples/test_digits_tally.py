"""The hull (the best mix of fixed backends), and savings against the best fixed backend."""

import pytest

from examples.digits.tally import Row, compare, document, hull, interval

CHEAP, MIDDLE, DEAR = (
    Row("cheap", 100, 0.80, 0.10),
    Row("middle", 100, 0.82, 0.50),
    Row("dear", 100, 1.00, 1.10),
)


@pytest.mark.parametrize(
    ("usd_per_request", "accuracy"),
    [
        (0.001, 0.80),  # the cheapest alone
        (0.006, 0.90),  # half cheap, half dear: above middle, which costs less
        (0.011, 1.00),
        (0.5, 1.00),  # more money buys no better
    ],
)
def test_the_hull_is_the_best_mix_at_a_cost(usd_per_request, accuracy):
    assert hull([CHEAP, MIDDLE, DEAR], usd_per_request) == pytest.approx(accuracy)


def test_a_more_expensive_and_worse_backend_does_not_lower_the_hull():
    worse = Row("worse", 100, 0.5, 0.9)

    assert hull([CHEAP, DEAR, worse], 0.006) == pytest.approx(0.90)


def test_there_is_no_mix_below_the_cheapest():
    with pytest.raises(ValueError, match="no mix"):
        hull([CHEAP, DEAR], 0.0005)


def test_saving_is_of_cost_and_loss_is_in_points_whatever_the_number_of_requests():
    half = Row("half as many", 50, 0.99, 0.11)

    against = compare(half, DEAR)

    assert against.saving == pytest.approx(0.8)
    assert against.points_lost == pytest.approx(1.0)


def test_the_interval_holds_the_share_and_narrows_with_more():
    few, many = interval(0.99, 100), interval(0.99, 10_000)

    assert few[0] < many[0] < 0.99 < many[1] < few[1] <= 1


def test_the_document_has_what_was_promised():
    assert document([DEAR]) == [
        {"name": "dear", "requests": 100, "accuracy": 1.00, "spend_usd": 1.10}
    ]
