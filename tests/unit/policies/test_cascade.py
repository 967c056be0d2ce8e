"""Accept or escalate, in a world where the cheap reply's confidence is informative."""

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from tollway.policies.evidence.off_policy import onward, weighted
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.registry import build
from tollway.policies.types import ACCEPT, Arm, Choice, Context, Notice, Objective, Policy

CHEAP, DEAR = Arm("cheap", 1e-4), Arm("dear", 1e-3)


def drive(
    policy: Policy, count: int, rng: Random, labels: str = "all", sure_right: float = 0.98
) -> tuple[float, float]:
    """Return (quality, cost) per request: the cheap arm is sure 70 % of the time, and then right.

    `labels`: `all` scores every reply seen (a true label), `given` only the one the client got.
    """
    quality = spent = 0.0
    for _ in range(count):
        sure = rng.random() < 0.7
        right = {"cheap": float(rng.random() < (sure_right if sure else 0.3)), "dear": 0.97}
        first = Context((1.0,))
        choice = policy.choose(first, (CHEAP, DEAR), rng)
        draws: list[tuple[Context, Choice]] = [(first, choice)]
        given, cost = choice.arm, choice.cost_hat_usd[choice.index]
        policy.charge(choice, cost)
        if choice.arm == "cheap":
            reply = (0.95 if sure else 0.4,)
            later = Context((1.0,), (), reply, "cheap", (), *onward(choice))
            choice = policy.choose(later, (Arm(ACCEPT, 0.0), DEAR), rng)
            draws.append((later, choice))
            policy.charge(choice, choice.cost_hat_usd[choice.index])
            cost += choice.cost_hat_usd[choice.index]
            given = "cheap" if choice.arm == ACCEPT else choice.arm
        known = set(right) if labels == "all" else {given}
        seen = {drawn.arm for _, drawn in draws} | {first.held for first, _ in draws}
        for context, drawn in draws:
            if context.held in known & seen:
                policy.learn(context, drawn, ACCEPT, right[context.held])
            if drawn.arm in known:
                policy.learn(context, drawn, drawn.arm, right[drawn.arm])
        if policy.resolve_due():
            policy.resolve()
        quality, spent = quality + right[given], spent + cost
    return quality / count, spent / count


def cascade(objective: Objective, **options: object) -> Policy:
    return build("cascade", objective, options=options, seed=0)


def verdicts(policy: Policy) -> list[str]:
    kinds = [notice.kind for notice in policy.drain() if isinstance(notice, Notice)]
    return [kind for kind in kinds if kind in {"floor_released", "floor_refuted"}]


@pytest.mark.parametrize("labels", ["all", "given"])
@pytest.mark.parametrize("head", ["vowpal", "ridge"])
def test_unsure_replies_are_escalated_and_sure_ones_accepted(head: str, labels: str) -> None:
    policy, rng = cascade(Objective(), head=head), Random(0)
    policy.pace(4.5e-4)
    drive(policy, 500, rng, labels)

    quality, spent = drive(policy, 1500, rng, labels)

    assert quality > 0.94  # routing before the call alone has .84 at this spend
    assert spent < 4.7e-4


def test_a_floor_is_held_by_escalating_no_more_than_it_takes() -> None:
    policy, rng = cascade(Objective("min_cost", floor=0.95, baseline="dear")), Random(1)
    drive(policy, 500, rng)

    quality, spent = drive(policy, 2000, rng)

    assert quality > 0.945
    assert spent < 0.65 * DEAR.cost_usd


def test_accepting_is_logged_with_the_received_reply() -> None:
    policy, rng = cascade(Objective()), Random(2)
    policy.pace(4.5e-4)
    drive(policy, 800, rng)

    choice = policy.choose(Context((1.0,), (), (0.4,), "cheap"), (Arm(ACCEPT, 0.0), DEAR), rng)

    assert choice.arms == (ACCEPT, "dear")
    assert choice.cost_hat_usd == (0.0, DEAR.cost_usd)
    assert choice.quality_hat[0] == pytest.approx(0.3, abs=0.15)
    assert choice.quality_hat[1] == pytest.approx(0.97, abs=0.05)


def test_the_cost_of_both_calls_is_paced() -> None:
    policy, rng = cascade(Objective()), Random(3)
    policy.pace(2.5e-4)
    drive(policy, 600, rng)

    assert drive(policy, 2000, rng)[1] == pytest.approx(2.5e-4, rel=0.06)


def test_unknown_arms_are_asked_where_a_reply_is_poor_and_money_is_left() -> None:
    """What may follow an arm's reply does not raise its cost, because escalation is optional."""
    policy, rng = cascade(Objective()), Random(4)
    policy.pace(1e-4)
    local, middle = Arm("local", 1e-7), Arm("middle", 5e-4)
    spent = 0.0
    for request in range(3000):
        sure = rng.random() < 0.7
        first, cost = Context((1.0,)), 0.0
        choice = policy.choose(first, (local, middle, DEAR), rng)
        policy.charge(choice, cost := choice.cost_hat_usd[choice.index])
        if choice.arm == "local":
            later = Context((1.0,), (), (0.95 if sure else 0.4,), "local")
            second = policy.choose(later, (Arm(ACCEPT, 0.0), middle, DEAR), rng)
            policy.charge(second, second.cost_hat_usd[second.index])
            cost += second.cost_hat_usd[second.index]
            if rng.random() < 0.1:  # labels are scarce, and only of what is nearly always asked
                policy.learn(first, choice, "local", float(sure))
                policy.learn(later, second, ACCEPT, float(sure))
        if policy.resolve_due():
            policy.resolve()
        spent += cost if request >= 1000 else 0.0

    assert spent / 2000 > 0.8e-4


@pytest.mark.parametrize("labels", ["all", "given"])
def test_a_floor_without_a_baseline_saves_within_a_few_hundred_labels(labels: str) -> None:
    """No request is drawn for a baseline, so every label counts once."""
    policy, rng = cascade(Objective("min_cost", floor=0.95)), Random(5)
    first, _ = drive(policy, 300, rng, labels)

    quality, spent = drive(policy, 600, rng, labels)

    assert spent < 0.65 * DEAR.cost_usd
    assert (first * 300 + quality * 600) / 900 > 0.93  # whose standard error is .008


def test_a_floor_with_a_baseline_asks_both_until_labels_show_which_replies_to_accept() -> None:
    policy, rng = cascade(Objective("min_cost", floor=0.95, baseline="dear")), Random(6)

    quality, spent = zip(*[drive(policy, 300, rng) for _ in range(6)], strict=True)

    assert spent[0] == pytest.approx(DEAR.cost_usd + CHEAP.cost_usd)
    assert max(spent[2:]) < 0.65 * DEAR.cost_usd  # .4 if every reply that is good is accepted
    assert min(quality) > 0.94
    assert verdicts(policy) == ["floor_released"]
    assert policy.figures()["floor_share"] > 0.8
    assert policy.figures()["floor_lower_bound"] > 0.95 - 0.03


def test_a_cheap_arm_that_fails_later_is_no_longer_believed() -> None:
    policy, rng = cascade(Objective("min_cost", floor=0.95, baseline="dear")), Random(7)
    drive(policy, 1500, rng)
    saving = drive(policy, 200, rng)[1]

    drive(policy, 300, rng, sure_right=0.5)
    quality, spent = drive(policy, 300, rng, sure_right=0.5)

    assert saving < 0.65 * DEAR.cost_usd < spent
    assert quality > 0.95
    assert verdicts(policy)[:2] == ["floor_released", "floor_refuted"]


def test_a_rule_survives_a_restart_and_is_adopted_by_other_workers() -> None:
    objective = Objective("min_cost", floor=0.95, baseline="dear")
    policy, rng = cascade(objective), Random(8)
    drive(policy, 1200, rng)
    restored, other = cascade(objective), cascade(objective)
    restored.load(policy.save())
    other.adopt(policy.save())
    later = Context((1.0,), (), (0.95,), "cheap")

    for each in (restored, other):
        for context, arms in ((Context((1.0,)), (CHEAP, DEAR)), (later, (Arm(ACCEPT, 0.0), DEAR))):
            copy, original = (one.choose(context, arms, Random(0)) for one in (each, policy))
            assert copy.pmf == pytest.approx(original.pmf)
            assert copy.reason == original.reason


def test_labels_of_single_replies_leave_the_floor_to_the_regressors() -> None:
    """Without a label of both replies nothing can be compared, so asking both teaches nothing."""
    policy, rng = cascade(Objective("min_cost", floor=0.95, baseline="dear")), Random(9)
    drive(policy, 400, rng, "given")

    quality, spent = drive(policy, 2000, rng, "given")

    assert quality > 0.94
    assert spent < DEAR.cost_usd


def first_choice(objective: Objective) -> Choice:
    """Return a first choice of the cheap arm by a policy that knows its two arms."""
    policy, rng = cascade(objective), Random(7)
    drive(policy, 300, rng, "given")  # so the regressors decide
    while True:
        choice = policy.choose(Context((1.0,)), (CHEAP, DEAR), rng)
        if choice.arm == "cheap":
            return choice


def second_choice(first: Choice, objective: Objective) -> Choice:
    later = Context((1.0,), (), (0.95,), first.arm, (), *onward(first))
    return cascade(objective).choose(later, (Arm(ACCEPT, 0.0), DEAR), Random(8))


def test_a_reply_counts_once_if_no_baseline_is_drawn() -> None:
    objective = Objective("min_cost", floor=0.95)

    choice = second_choice(first_choice(objective), objective)

    assert (choice.reached, choice.reached_most) == (1.0, 1.0)


def test_a_reply_also_counts_for_requests_drawn_for_the_baseline() -> None:
    objective = Objective("min_cost", floor=0.95, baseline="dear")
    first = first_choice(objective)
    asked, drawn = first.shadow[first.index], first.propensity

    choice = second_choice(first, objective)

    assert choice.reached == pytest.approx(asked / drawn)
    assert choice.reached == choice.reached_most > 1.0


def test_a_reply_to_a_clients_own_floor_counts_once() -> None:
    """A client's floor above the route's takes precedence over the guard, so nothing was drawn."""
    objective = Objective("min_cost", floor=0.95, baseline="dear")
    policy, rng = cascade(objective), Random(7)
    drive(policy, 300, rng, "given")

    demanded = policy.choose(Context((1.0,)), (CHEAP, DEAR), rng, 0.999)

    assert policy.figures()["floor_share"] < 1.0
    assert second_choice(demanded, objective).reached == 1.0


def test_the_largest_weight_of_a_request_is_known_before_the_draw() -> None:
    """Otherwise chance decides the size of the bets, and the bound does not hold.

    The baseline is not the most expensive arm here: its replies can be escalated too.
    """
    first = Choice(
        ("cheap", "base", "dear"),
        (0.1, 0.9, 0.0),
        0,
        (0.9, 0.9, 0.9),
        (1e-4, 5e-4, 1e-3),
        0.0,
        "best",
        0,
        shadow=(1.0, 0.0, 0.0),
    )
    values = []
    for index, losses in ((0, 0.4), (1, 0.02)):
        drawn = replace(first, index=index)
        later = Context((1.0,), (), (0.9,), drawn.arm, (), *onward(drawn))
        choice = cascade(Objective()).choose(later, (Arm(ACCEPT, 0.0), DEAR), Random(0))
        values.append(weighted(choice, 1.0 - losses))

    (own, least, _), (other, same, _) = values
    assert least == same == pytest.approx(-9.0)
    assert 0.1 * own + 0.9 * other == pytest.approx(1.0 - 0.4)  # of the learned policy alone


def labels_of_the_baseline_alone(policy: Policy) -> float:
    return float(json.loads(policy.save().partition(b"\n")[0])["values"]["rule"]["alone"][0])


@pytest.mark.parametrize(
    ("arms", "own_floor", "counted"),
    [((CHEAP, DEAR), None, True), ((DEAR,), None, False), ((CHEAP, DEAR), 0.99, False)],
)
def test_requests_that_the_rule_does_not_draw_for_show_nothing_about_the_others(
    arms: tuple[Arm, ...], own_floor: float | None, counted: bool
) -> None:
    """Those that the cheap arm is not offered for, or with a stricter floor, may be easier."""
    policy, rng = cascade(Objective("min_cost", floor=0.95, baseline="dear")), Random(10)
    drive(policy, 850, rng, sure_right=0.3)  # so both are asked only now and then
    before = labels_of_the_baseline_alone(policy)

    drawn = 0
    for _ in range(20):
        choice = policy.choose(Context((1.0,)), arms, rng, own_floor)
        if choice.arm == "dear":
            drawn += 1
            policy.learn(Context((1.0,)), choice, "dear", 1.0)

    assert drawn > 10
    assert labels_of_the_baseline_alone(policy) - before == (drawn if counted else 0)


@pytest.mark.parametrize("arm", [ACCEPT, "dear"])
def test_a_shortfall_that_signals_see_raises_the_aim_until_they_see_it_made_good(arm: str) -> None:
    policy: Any = cascade(Objective("min_cost", floor=0.9))
    first, later = Context((1.0,)), Context((1.0,), (), (0.9,), "cheap")
    policy.choose(first, (CHEAP, DEAR), Random(0))
    drawn = policy.choose(later, (Arm(ACCEPT, 0.0), DEAR), Random(0))
    choice = replace(drawn, index=drawn.arms.index(arm))
    aims = []
    for quality, count in ((1.0, 20), (0.0, 20), (1.0, 400)):
        for _ in range(count):
            policy.learn_signal(later, choice, arm, SignalEstimate(quality, 0.5, quality))
        aims.append(policy._floor.target)
    assert aims[0] == aims[2] == pytest.approx(0.901)
    assert aims[1] == pytest.approx(0.901 + 20 * 0.5 * 0.901 / 100)


def test_what_signals_say_of_a_reply_that_was_not_accepted_does_not_move_the_aim() -> None:
    policy: Any = cascade(Objective("min_cost", floor=0.9))
    first, later = Context((1.0,)), Context((1.0,), (), (0.1,), "cheap")
    start = policy.choose(first, (CHEAP, DEAR), Random(0))
    drawn = policy.choose(later, (Arm(ACCEPT, 0.0), DEAR), Random(0))
    wrong = SignalEstimate(0.0, 0.5, 0.0)
    policy.learn_signal(first, replace(start, index=0), "cheap", wrong)
    policy.learn_signal(later, replace(drawn, index=drawn.arms.index("dear")), ACCEPT, wrong)
    assert policy._floor.owed == 0.0
