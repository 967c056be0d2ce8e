"""The controller of a rollout."""

from dataclasses import replace

import pytest

from tollway.gateway.rollouts import controller
from tollway.gateway.rollouts.controller import MoveRefused
from tollway.gateway.rollouts.model import (
    Criterion,
    Evidence,
    Measure,
    Move,
    RolloutPlan,
    RolloutState,
    Step,
)

PLAN = RolloutPlan(
    "r",
    "old",
    "new",
    steps=(Step(0.1, 60.0), Step(0.5, 60.0)),
    criteria=(Criterion("error_rate", margin=0.01),),
    max_s=1000.0,
)
GOOD = Measure("error_rate", 0.0, 0.0, 900, 100, 0.0, -0.01, 0.01, met=True)
UNSURE = replace(GOOD, high=0.05, met=False)
WORSE = replace(GOOD, candidate=0.2, log_evidence=100.0)


def evidence(measure: Measure = GOOD, **more: object) -> Evidence:
    return Evidence({measure.metric: measure}, **more)  # type: ignore[arg-type]


def started(plan: RolloutPlan = PLAN) -> RolloutState:
    return controller.start(plan, None, run="1", now_s=0.0, by="kim", why="go").state


def moved(state: RolloutState, found: Evidence, now_s: float, plan: RolloutPlan = PLAN) -> Move:
    move = controller.next(plan, state, found, now_s)
    assert move is not None
    return move


def test_a_step_ends_when_its_pause_is_over_and_its_criteria_are_met() -> None:
    state = started()
    assert (state.weight, state.step) == (0.1, 0)
    assert controller.next(PLAN, state, evidence(), 59.0) is None
    assert controller.next(PLAN, state, evidence(UNSURE), 61.0) is None
    state = moved(state, evidence(), 61.0).state
    assert (state.weight, state.step, state.since_s) == (0.5, 1, 61.0)
    done = moved(state, evidence(), 122.0)
    assert (done.kind, done.state.phase, done.state.weight) == ("promoted", "promoted", 1.0)


def test_a_breach_stops_at_once_also_while_paused_or_just_promoted() -> None:
    state = started()
    for phase in ("progressing", "paused", "promoted"):
        move = moved(replace(state, phase=phase), evidence(WORSE), 0.0)
        assert (move.kind, move.state.phase, move.state.weight) == (
            "rolled_back",
            "rolled_back",
            0.0,
        )
        assert "error_rate is worse than tolerated" in move.why


def test_a_candidate_out_of_service_is_stopped() -> None:
    assert moved(started(), evidence(broken="it is down"), 0.0).why == "it is down"


def test_forgiven_failures_restart_the_step_and_its_evidence() -> None:
    plan = replace(PLAN, failure_limit=1)
    first = moved(started(plan), evidence(WORSE), 30.0, plan)
    assert (first.kind, first.state.epoch, first.state.weight) == ("analysis_failed", 1, 0.1)
    assert moved(first.state, evidence(WORSE), 31.0, plan).kind == "rolled_back"


def test_the_criteria_share_the_chance_of_a_false_rollback() -> None:
    one = controller.alarm_at(PLAN, PLAN.criteria[0])
    many = replace(PLAN, criteria=tuple(Criterion(name) for name in ("quality", "cost", "value")))
    assert controller.alarm_at(many, many.criteria[0]) > one


def test_what_is_missing_is_said() -> None:
    state = started()
    few = replace(UNSURE, candidate_count=3)
    said = controller.waiting(PLAN, state, evidence(few, behind=2), 10.0)
    assert said == (
        "2 gateway processes have not applied the step yet",
        "error_rate: 3 of 30 observations of the candidate",
        "50 s of the step are left",
    )
    wide = controller.waiting(PLAN, state, evidence(UNSURE), 100.0)
    assert "must come within 0.01 (about" in wide[0]


def test_an_inconclusive_rollout_pauses_and_gets_its_time_again_when_resumed() -> None:
    state = started()
    move = moved(state, evidence(UNSURE), 1001.0)
    assert (move.kind, move.state.phase, move.state.weight) == ("inconclusive", "paused", 0.1)
    resumed = controller.resume(PLAN, move.state, now_s=2000.0, by="kim", why="wait").state
    assert controller.next(PLAN, resumed, evidence(UNSURE), 2001.0) is None


@pytest.mark.parametrize(("choice", "weight"), [("abort", 0.0), ("promote", 1.0)])
def test_an_inconclusive_rollout_may_also_end(choice: str, weight: float) -> None:
    plan = replace(PLAN, inconclusive=choice)
    assert moved(started(plan), evidence(UNSURE), 1001.0, plan).state.weight == weight


def test_a_step_without_an_end_waits_for_a_person() -> None:
    plan = replace(PLAN, steps=(Step(0.1, None), Step(0.5)))
    move = moved(started(plan), evidence(), 5.0, plan)
    assert move.state.phase == "paused"
    state = controller.resume(plan, move.state, now_s=9.0, by="kim", why="ok").state
    assert moved(state, evidence(), 9.0, plan).state.weight == 0.5


def test_the_stable_version_is_retired_once_all_have_switched() -> None:
    state = controller.promote(started(), now_s=100.0, by="kim", why="go").state
    assert controller.next(PLAN, state, evidence(), 699.0) is None
    assert controller.next(PLAN, state, evidence(behind=1), 701.0) is None
    assert moved(state, evidence(), 701.0).state.phase == "retired"


def test_a_blue_green_switch_waits_for_smoke_requests() -> None:
    plan = replace(PLAN, strategy="blue_green", steps=(Step(0.0), Step(1.0)))
    state = started(plan)
    assert state.weight == 0.0
    assert controller.next(plan, state, evidence(), 1.0) is None
    assert moved(state, evidence(smoke="status 500"), 1.0, plan).kind == "rolled_back"
    switched = moved(state, evidence(smoke=""), 1.0, plan)
    assert (switched.kind, switched.state.weight) == ("advanced", 1.0)


def test_a_shadow_gets_no_requests_and_ends_with_a_question() -> None:
    plan = replace(PLAN, strategy="shadow", steps=(Step(0.0, 60.0),))
    state = started(plan)
    assert state.weight == 0.0
    move = moved(state, evidence(), 61.0, plan)
    assert (move.kind, move.state.phase, move.state.weight) == ("passed", "paused", 0.0)


def test_limits_hold_without_a_stable_version() -> None:
    plan = replace(PLAN, criteria=(Criterion("quality", limit=0.85),))
    low = Measure("quality", 0.0, 0.8, 0, 100, 0.0, 0.0, 0.0)
    assert controller.waiting(plan, started(plan), evidence(low), 100.0) == (
        "quality: 0.8, must be at least 0.85",
    )
    assert moved(started(plan), evidence(replace(low, over_limit=9.0)), 1.0, plan).kind == (
        "rolled_back"
    )


def test_acts_that_do_not_fit_are_refused() -> None:
    state = started()
    with pytest.raises(MoveRefused, match="abort it first"):
        controller.start(PLAN, state, run="2", now_s=1.0, by="kim", why="again")
    with pytest.raises(MoveRefused, match="has not been started"):
        controller.pause(None, by="kim", why="x")
    with pytest.raises(MoveRefused, match="cannot be resumed"):
        controller.resume(PLAN, state, now_s=1.0, by="kim", why="x")
    ended = controller.abort(state, now_s=1.0, by="kim", why="x").state
    assert controller.next(PLAN, ended, evidence(WORSE), 2.0) is None
    again = controller.start(PLAN, ended, run="2", now_s=2.0, by="kim", why="again").state
    assert again.number > ended.number
    assert again.salt != state.salt


def test_a_state_survives_its_document() -> None:
    state = replace(started(), waiting=("a",))
    assert RolloutState.of({**state.document(), "unknown": 1}) == state


def test_a_step_that_a_reload_has_removed_counts_as_the_last() -> None:
    state = replace(started(), step=1, weight=0.5)
    plan = replace(PLAN, steps=PLAN.steps[:1])
    assert controller.next(plan, state, evidence(UNSURE), 61.0) is None
    assert controller.waiting(plan, state, evidence(), 10.0) == ("50 s of the step are left",)
    assert moved(state, evidence(), 61.0, plan).kind == "promoted"
