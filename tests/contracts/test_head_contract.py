"""The contract of `Regressor`, run over every implementation."""

import math
from collections.abc import Callable
from random import Random

import pytest

from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.regressors.types import Regressor
from tollway.policies.regressors.vowpal import VowpalRegressor
from tollway.policies.types import ACCEPT, Context

MAKERS = {"vowpal": VowpalRegressor, "ridge": RidgeRegressor}
Make = Callable[[], Regressor]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


def contexts(count: int, seed: int = 0) -> list[Context]:
    rng = Random(seed)
    return [
        Context(
            tuple(rng.uniform(-1, 1) for _ in range(4)),
            tuple((rng.randrange(1 << 18), 0.5) for _ in range(4)),
        )
        for _ in range(count)
    ]


def taught(make: Make, count: int = 400) -> Regressor:
    head = make()
    for at, context in enumerate(contexts(count)):
        arm = "ab"[at % 2]
        head.learn(context, arm, 0.3 * context.dense[0] if arm == "a" else -0.1)
    return head


def test_an_arm_never_seen_is_predicted_a_finite_number(make: Make) -> None:
    values = make().predict(contexts(1)[0], ("x", "y"))

    assert values == [0.0, 0.0]


def test_it_learns_each_arm_by_itself_from_the_context(make: Make) -> None:
    head = taught(make)

    for context in contexts(20, seed=1):
        a, b = head.predict(context, ("a", "b"))
        assert a == pytest.approx(0.3 * context.dense[0], abs=0.1)
        assert b == pytest.approx(-0.1, abs=0.1)


def test_predictions_are_in_the_order_of_the_arms_given(make: Make) -> None:
    head, context = taught(make), contexts(1, seed=2)[0]

    a, b = head.predict(context, ("a", "b"))

    assert head.predict(context, ("b", "a")) == pytest.approx([b, a], abs=1e-6)
    assert head.predict(context, ("b",)) == pytest.approx([b], abs=1e-6)
    assert head.predict(context, ("new", "b"))[1] == pytest.approx(b, abs=1e-6)


def test_a_table_of_contexts_predicts_the_same_as_each_context_alone(make: Make) -> None:
    head, rng = make(), Random(11)
    plain = [Context((rng.random(), rng.random())) for _ in range(3)]
    few = [Context((rng.random(), 0.5), ((rng.randrange(1 << 18), 1.0),)) for _ in range(3)]
    many = [
        Context((0.1, 0.2), tuple((rng.randrange(1 << 18), 0.2) for _ in range(count)))
        for count in (17, 40, 400)
    ]
    table, rows = head.table(4), {}
    for number, context in enumerate([*plain, *few, *many, *plain]):
        rows[number % 4] = context
        table.put(number % 4, context)
        head.learn(context, "ab"[number % 2], 0.1 * number - 0.5)
        head.learn(few[0], "b", 0.4)
        held = slice(len(rows))

        values = table.predict(held, ("b", "a", "new"))

        assert values.shape == (len(rows), 3)
        for row, found in enumerate(values.tolist()):
            assert found == pytest.approx(head.predict(rows[row], ("b", "a", "new")), abs=1e-6)
    assert table.predict([3, 1], ("a",))[:, 0] == pytest.approx(
        [head.predict(rows[row], ("a",))[0] for row in (3, 1)], abs=1e-6
    )


def test_the_same_labels_give_the_same_bytes(make: Make) -> None:
    assert taught(make).save() == taught(make).save()


def test_learning_returns_the_prediction_before_the_update(make: Make) -> None:
    head, context = taught(make), contexts(1, seed=10)[0]
    before = head.predict(context, ("a",))[0]

    assert head.learn(context, "a", 0.9) == pytest.approx(before, abs=1e-6)
    assert head.predict(context, ("a",))[0] != before


def test_predicting_changes_nothing(make: Make) -> None:
    head, context = taught(make), contexts(1, seed=3)[0]
    before = head.predict(context, ("a", "b"))

    for other in contexts(50, seed=4):
        head.predict(other, ("a", "b"))

    assert head.predict(context, ("a", "b")) == before


def test_a_restored_state_predicts_and_learns_like_the_original(make: Make) -> None:
    head, copy, context = taught(make), make(), contexts(1, seed=5)[0]

    copy.load(head.save())
    for other in (head, copy):
        other.learn(context, "a", 0.25)

    assert copy.predict(context, ("a", "b")) == head.predict(context, ("a", "b"))


@pytest.mark.parametrize("label", [math.nan, math.inf, -math.inf])
def test_a_label_that_is_not_finite_is_refused_and_harms_nothing(make: Make, label: float) -> None:
    head, context = taught(make), contexts(1, seed=6)[0]
    before = head.predict(context, ("a", "b"))

    with pytest.raises(ValueError, match="label"):
        head.learn(context, "a", label)

    assert head.predict(context, ("a", "b")) == before


@pytest.mark.parametrize(
    "context",
    [
        Context((math.nan, 0.0, 0.0, 0.0)),
        Context((0.0, math.inf, 0.0, 0.0)),
        Context((0.0, 0.0, 0.0, 0.0), ((3, math.nan),)),
        Context((0.0, 0.0, 0.0, 0.0), (), (math.nan,), "a"),
    ],
)
def test_a_context_that_is_not_finite_is_refused_and_harms_nothing(
    make: Make, context: Context
) -> None:
    head, good = taught(make), contexts(1, seed=7)[0]
    before = head.predict(good, ("a", "b"))

    with pytest.raises(ValueError, match="not finite"):
        head.learn(context, "a", 0.5)
    with pytest.raises(ValueError, match="not finite"):
        head.predict(context, ("a", "b"))

    assert head.predict(good, ("a", "b")) == before


def test_every_cut_and_every_flipped_bit_of_a_saved_state_is_refused(make: Make) -> None:
    head = taught(make, 40)
    state, context = head.save(), contexts(1)[0]
    before = head.predict(context, ("a", "b"))
    rng = Random(8)

    damaged = [state[: rng.randrange(len(state))] for _ in range(20)]
    for _ in range(60):
        at = rng.randrange(len(state))
        damaged.append(state[:at] + bytes([state[at] ^ 1 << rng.randrange(8)]) + state[at + 1 :])

    for blob in damaged:
        with pytest.raises(ValueError, match="state"):
            head.load(blob)
    assert head.predict(context, ("a", "b")) == before


def test_a_state_of_another_kind_is_refused(make: Make) -> None:
    other = next(kind for kind in MAKERS.values() if kind is not make)

    with pytest.raises(ValueError, match="not of"):
        make().load(other().save())


def test_reply_features_separate_right_from_wrong_answers(make: Make) -> None:
    head, rng = make(), Random(9)
    for _ in range(300):
        sure = rng.random()
        head.learn(Context((1.0,), (), (sure,), "cheap"), "cheap", sure)

    low, high = (
        head.predict(Context((1.0,), (), (sure,), "cheap"), ("cheap",))[0] for sure in (0.1, 0.9)
    )
    assert low == pytest.approx(0.1, abs=0.1)
    assert high == pytest.approx(0.9, abs=0.1)


def test_names_of_arms_are_data_and_never_syntax(make: Make) -> None:
    head = make()
    names = ("a |s x:9", "b\n|a y", ACCEPT, "--help", "ü:1:2", "")
    context = contexts(1)[0]

    for at, name in enumerate(names):
        for _ in range(40):
            head.learn(context, name, 0.1 * at)

    # Arms may share what they have in common, so each must be told apart, not be exact.
    values = head.predict(context, names)
    assert values == sorted(values)
    assert len(values) == len(names)
