"""How far a regressor is trusted."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from tollway.policies.quality import Quality
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.regressors.types import Listed, Matrix, Table
from tollway.policies.state_codec import pack
from tollway.policies.types import Arm, Context

ARM = Arm("a", 1.0)
CONTEXT = Context((0.0,))


class Oracle:
    """A regressor that returns its context's first number and never learns."""

    cheap_many = 10

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        return [context.dense[0]] * len(arms)

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        return np.array([self.predict(context, arms) for context in contexts])

    def table(self, rows: int) -> Table:
        return Listed(self)

    def learn(self, context: Context, arm: str, value: float) -> float:
        return context.dense[0]

    def save(self) -> bytes:
        return pack("oracle", {}, {})

    def load(self, state: bytes) -> None: ...


def predicted(quality: Quality, context: Context, arms: Sequence[Arm]) -> list[float]:
    return quality.expect(context, arms, [arm.name for arm in arms])[0]


def taught(truth: float, seed: int = 0) -> Quality:
    """A quality of 0.5 + truth times the regressor's prediction."""
    quality, rng = Quality(Oracle(), default=0.5), Random(seed)
    for _ in range(2000):
        said = rng.uniform(-0.4, 0.4)
        label = float(rng.random() < 0.5 + truth * said)
        predicted(quality, Context((said,)), (ARM,))
        quality.learn(Context((said,)), "a", label)
    return quality


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_a_regressor_is_trusted_as_far_as_it_was_right(truth: float) -> None:
    quality = taught(truth)

    high, low = (predicted(quality, Context((said,)), (ARM,))[0] for said in (0.3, -0.3))

    assert (high - low) / 0.6 == pytest.approx(truth, abs=0.25)


def test_many_contexts_at_once_are_each_by_itself() -> None:
    quality = taught(0.7)
    contexts = [Context((said,)) for said in (-0.9, -0.1, 0.2, 0.9)]
    table = quality.table(4)
    for row, context in enumerate(contexts):
        table.put(row, context)

    values = quality.rethink(table, slice(4), ("a",))

    assert values[:, 0] == pytest.approx([predicted(quality, each, (ARM,))[0] for each in contexts])
    assert values.min() >= 0.0
    assert values.max() <= 1.0
    assert quality.rethink(table, [2, 0], ("a",)).tolist() == values[[2, 0]].tolist()


def test_a_declared_quality_is_where_it_starts() -> None:
    quality = Quality(Oracle(), default=0.5)

    values = predicted(quality, Context((0.0,)), (Arm("x", 1.0, 0.9), Arm("y", 0.5)))

    assert values == [0.9, 0.5]


@pytest.mark.parametrize("prior", [-0.1, 1.1, float("nan")])
def test_a_declared_quality_out_of_range_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="declares"):
        predicted(Quality(Oracle(), default=0.5), Context((0.0,)), (Arm("x", 1.0, prior),))


def test_an_unknown_arm_is_presumed_better_than_what_costs_less() -> None:
    quality = Quality(RidgeRegressor(), default=0.8)
    dear, cheap, middle = predicted(
        quality, CONTEXT, (Arm("d", 1.0), Arm("c", 0.01), Arm("m", 0.1))
    )
    assert cheap == 0.8 < middle < dear < 0.95


def test_a_newcomer_is_presumed_better_than_what_was_learned_of_cheaper_arms() -> None:
    quality = Quality(RidgeRegressor(), default=0.5)
    cheap, new = Arm("cheap", 0.01), Arm("new", 0.02)
    predicted(quality, CONTEXT, (cheap,))
    for _ in range(200):
        quality.learn(CONTEXT, "cheap", 0.9)
    known, presumed = predicted(quality, CONTEXT, (cheap, new))
    assert known < presumed < known + 0.04


def test_what_is_declared_goes_before_what_is_presumed() -> None:
    quality = Quality(RidgeRegressor(), default=0.8)
    arms = (Arm("c", 0.01), Arm("d", 1.0, prior_quality=0.3), Arm("free", 0.0))
    assert predicted(quality, CONTEXT, arms) == [0.8, 0.3, 0.8]


def test_an_arm_is_no_longer_suspect_once_its_mean_shows_a_false_alarm() -> None:
    """An unlucky run is an alarm; a hundred labels later the mean is what it was."""
    quality, rng = Quality(Oracle(), default=0.8), Random(0)
    predicted(quality, CONTEXT, (ARM,))

    def learn(count: int, right: float) -> float:
        for _ in range(count):
            quality.learn(CONTEXT, "a", float(rng.random() < right))
        return quality.expect(CONTEXT, (ARM,), ["a"])[1][0]

    unknown = quality.expect(CONTEXT, (ARM,), ["a"])[1][0]
    assert learn(400, 0.8) < unknown / 10
    assert learn(25, 0.0) == unknown  # suspect: it counts as an arm without labels
    assert learn(300, 0.8) < unknown / 10
    learn(30, 0.0)
    assert learn(300, 0.3) == unknown  # it did become worse
