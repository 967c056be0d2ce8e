"""The split of an arm between two versions."""

from random import Random

import pytest

from tollway.policies.registry import build
from tollway.policies.split import Split
from tollway.policies.types import ACCEPT, Arm, Choice, Context, Objective, Policy

OLD, NEW, OTHER = Arm("old", 1e-3), Arm("new", 2e-3), Arm("other", 1e-4)
CONTEXT = Context((1.0, 0.5))


def weighted(other: float = 1.0, old: float = 1.0) -> Split:
    weights = {"old": old, "other": other}
    policy = build("weighted", Objective(), options={"weights": weights}, seed=0)
    return Split(policy, "old", "new")


def learned() -> Split:
    return Split(build("lagrangian", Objective(), options={}, seed=0), "old", "new")


def at(unit: float) -> Context:
    return Context((1.0, 0.5), unit=unit)


def test_the_candidate_has_its_share_of_what_the_stable_arm_would_have_got() -> None:
    split = weighted(other=1.0, old=3.0)
    split.weight = 0.2
    choice = split.choose(CONTEXT, [OTHER, OLD, NEW], Random(0))
    assert dict(zip(choice.arms, choice.pmf, strict=True)) == pytest.approx(
        {"other": 0.25, "old": 0.6, "new": 0.15}
    )


@pytest.mark.parametrize("weight", [0.1, 0.5])
def test_arms_are_drawn_as_often_as_their_propensities_say(weight: float) -> None:
    split, rng, count = weighted(), Random(1), 4000
    split.weight = weight
    drawn = [split.choose(CONTEXT, [OTHER, OLD, NEW], rng) for _ in range(count)]
    share = sum(choice.arm == "new" for choice in drawn) / count
    assert share == pytest.approx(0.5 * weight, abs=0.02)
    assert all(choice.propensity == choice.pmf[choice.arms.index(choice.arm)] for choice in drawn)


def test_a_key_sees_one_version_and_raising_the_weight_moves_nobody_back() -> None:
    split = weighted(other=0.0)
    units = [n / 50 for n in range(50)]
    before: set[float] = set()
    for weight in (0.0, 0.1, 0.5, 1.0):
        split.weight = weight
        new = {u for u in units if split.choose(at(u), [OLD, NEW], Random(0)).arm == "new"}
        assert new == {u for u in units if u < weight}
        assert before <= new
        before = new


def test_without_weight_the_policy_inside_sees_only_the_stable_version() -> None:
    assert weighted().choose(CONTEXT, [OTHER, OLD, NEW], Random(0)).arms == ("other", "old")


def test_at_full_weight_the_candidate_stands_for_the_arm() -> None:
    split = weighted()
    split.weight = 1.0
    choice = split.choose(at(0.99), [OTHER, OLD, NEW], Random(0))
    assert (choice.arms, choice.pmf) == (("other", "new"), (0.5, 0.5))
    alone = split.choose(at(0.99), [NEW], Random(0))
    assert (alone.arms, alone.cost_hat_usd) == (("new",), (2e-3,))


def test_a_candidate_gets_nothing_while_the_stable_version_is_not_offered() -> None:
    split = weighted()
    split.weight = 0.5
    assert split.choose(at(0.0), [OTHER, NEW], Random(0)).arms == ("other",)


def test_in_a_cascade_neither_version_answers_after_the_other() -> None:
    split = weighted()
    split.weight = 0.5
    for held, offered in (("new", [OTHER, OLD]), ("old", [OTHER, NEW])):
        context = Context((1.0, 0.5), held=held, unit=0.1)
        choice = split.choose(context, [*offered], Random(0))
        if held == "old":
            assert choice.arms == ("other",)
    context = Context((1.0, 0.5), held="new", unit=0.1)
    held_new = split.choose(context, [Arm("other", 3e-3), OLD, NEW], Random(0))
    assert held_new.arms == ("other",)


def test_the_policy_inside_learns_both_versions_answers_as_its_one_arm() -> None:
    split = learned()
    split.weight = 0.3
    seen: list[tuple[str, float, float]] = []
    learn = split.inner.learn

    def recorded(context: Context, choice: Choice, arm: str, *more: float, belief: float) -> None:
        assert set(choice.arms) == {"other", "old"}
        assert sum(choice.pmf) == pytest.approx(1.0)
        seen.append((arm, choice.propensity, choice.cost_hat_usd[choice.arms.index("old")]))
        learn(context, choice, arm, *more, belief=belief)

    split.inner.learn = recorded  # type: ignore[method-assign, assignment]
    drawn, rng = [], Random(0)
    for n in range(60):
        context = Context((1.0, n / 60), unit=(n % 10) / 10)
        choice = split.choose(context, [OTHER, OLD, NEW], rng)
        split.learn(context, choice, choice.arm, 0.7)
        drawn.append(choice.arm)
    assert set(drawn) == {"other", "old", "new"}
    assert [arm for arm, _, _ in seen] == [{"new": "old"}.get(arm, arm) for arm in drawn]
    assert {round(cost, 6) for _, _, cost in seen} == {0.0013}


def test_what_is_saved_is_the_policy_inside(tmp_path: object) -> None:
    split, plain = learned(), learned().inner
    assert split.save() == plain.save()
    split.load(plain.save())
    split.adopt(plain.save())
    assert split.version == plain.version


def test_a_guarded_arm_keeps_its_name_in_what_is_learned() -> None:
    inner: Policy = build(
        "lagrangian", Objective(baseline="old"), options={}, seed=0, guard="shadow"
    )
    split = Split(inner, "old", "new")
    for weight in (0.3, 1.0):
        split.weight = weight
        choice = split.choose(at(0.1), [OTHER, OLD, NEW], Random(0))
        assert choice.guarded_by in choice.arms
        assert sum(choice.shadow) == pytest.approx(1.0)
        split.learn(at(0.1), choice, choice.arm, 1.0)


def test_a_price_change_counts_for_the_versions_share() -> None:
    split = learned()
    split.weight = 0.25
    seen: list[tuple[str, float]] = []
    split.inner.reprice = lambda arm, ratio: seen.append((arm, ratio))  # type: ignore[method-assign]
    split.reprice("new", 2.0)
    split.reprice("old", 2.0)
    split.reprice("other", 2.0)
    assert seen == [("old", 1.25), ("old", 1.75), ("other", 2.0)]


def test_accepting_a_reply_is_possible_with_both_versions() -> None:
    split = learned()
    split.weight = 0.5
    context = Context((1.0, 0.5), reply=(), held="other", unit=0.1)
    choice = split.choose(context, [Arm(ACCEPT, 0.0), OLD, NEW], Random(0))
    assert set(choice.arms) == {ACCEPT, "old", "new"}
