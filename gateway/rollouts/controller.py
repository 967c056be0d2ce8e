"""The controller of a rollout: decides the next move from the state, the evidence and the time.

    next(plan, state, evidence, now_s) -> Move | None

It is pure: no I/O, no clock, no memory. The acts of people are functions of the same kind.

    phase         move                                        to
    any watched   a criterion is breached, or the candidate   ROLLED_BACK, weight 0, at once; below
                  is out of service                           the failure limit: the step restarts
    PROGRESSING   the step's pause is over and every          the next step; after the last one
                  criterion is met                            PROMOTED (a shadow: PAUSED)
                  the step has no end                         PAUSED, until a person resumes it
                  `max_s` is over                             PAUSED, ABORTED or PROMOTED
    PROMOTED      `keep_s` is over and every process has      RETIRED
                  applied it

The evidence may be looked at as often as one likes: it is valid at all times together
(`policies.evidence.comparison`).
"""

import math
from dataclasses import replace

from tollway.gateway.rollouts.model import (
    ABORTED,
    BLUE_GREEN,
    GOOD,
    LIVE,
    PAUSED,
    PROGRESSING,
    PROMOTED,
    RETIRED,
    ROLLED_BACK,
    SHADOW,
    Criterion,
    Evidence,
    Measure,
    Move,
    RolloutPlan,
    RolloutState,
)


class MoveRefused(ValueError):  # noqa: N818 - reads as what happened
    """The act does not fit the rollout's phase."""


def next(plan: RolloutPlan, state: RolloutState, evidence: Evidence, now_s: float) -> Move | None:
    """Return the move that is due; None if there is nothing to do but wait."""
    if not state.is_watched:
        return None
    if why := stopping(plan, state, evidence):
        return _fail(plan, state, why, now_s)
    if state.phase == PROMOTED:
        return _retire(plan, state, evidence, now_s)
    return _progress(plan, state, evidence, now_s) if state.phase == PROGRESSING else None


UNTIL_RESUMED = "the step lasts until it is resumed"


def waits_for_smoke(plan: RolloutPlan, state: RolloutState) -> bool:
    """Whether a blue-green rollout has not switched yet: smoke requests decide."""
    return plan.strategy == BLUE_GREEN and state.is_live and state.step == 0


def stopping(plan: RolloutPlan, state: RolloutState, evidence: Evidence) -> str:
    """Return why the candidate must be stopped now; empty if it need not be."""
    if evidence.broken and (state.weight > 0.0 or plan.strategy == SHADOW):
        return evidence.broken
    if evidence.smoke:
        return f"smoke request failed: {evidence.smoke}"
    for criterion in plan.criteria:
        measure = evidence.measures.get(criterion.metric)
        if measure is None:
            continue
        alarm = alarm_at(plan, criterion)
        if measure.log_evidence >= alarm:
            return _worse(criterion, measure)
        if measure.over_limit >= alarm:
            return (
                f"{criterion.metric} is beyond the limit of {criterion.limit:g}: "
                f"{measure.candidate:.4g} in {measure.candidate_count} requests"
            )
    return ""


def alarm_at(plan: RolloutPlan, criterion: Criterion) -> float:
    """Return the log evidence that stops a rollout: the criteria share the chance of error."""
    shares = sum(one.share * (1 + (one.limit is not None)) for one in plan.criteria)
    return -math.log(plan.alpha * criterion.share / shares)


def waiting(
    plan: RolloutPlan, state: RolloutState, evidence: Evidence, now_s: float
) -> tuple[str, ...]:
    """Return what the present step still waits for; empty if it may end."""
    at = min(state.step, len(plan.steps) - 1)  # a reload may have removed steps
    step, missing = plan.steps[at], []
    if waits_for_smoke(plan, state) and evidence.smoke is None:
        missing.append("smoke requests have not been answered yet")
    if evidence.behind:
        missing.append(f"{evidence.behind} gateway processes have not applied the step yet")
    if step.analysis:
        for criterion in plan.criteria:
            why = unmet(plan, criterion, evidence.measures.get(criterion.metric), state)
            if why:
                missing.append(why)
    last = at == len(plan.steps) - 1
    left_s = 0.0 if step.pause_s is None else state.since_s + step.pause_s - now_s
    if last:
        left_s = max(left_s, state.started_s + plan.min_s - now_s)
    if left_s > 0.0:
        missing.append(f"{left_s:.0f} s of the step are left")
    if step.pause_s is None and not state.waited:
        missing.append(UNTIL_RESUMED)
    return tuple(missing)


def unmet(
    plan: RolloutPlan, criterion: Criterion, measure: Measure | None, state: RolloutState
) -> str:
    """Return what a criterion lacks for the step to end; empty if it is met."""
    name, margin = criterion.metric, criterion.margin
    if margin is None and criterion.limit is None:
        return ""  # it only ever stops a rollout
    if measure is None or measure.candidate_count < plan.samples_min:
        count = 0 if measure is None else measure.candidate_count
        return f"{name}: {count} of {plan.samples_min} observations of the candidate"
    limit = criterion.limit
    if limit is not None and beyond(name, measure.candidate, limit):
        return f"{name}: {measure.candidate:.4g}, must be {_side(name)} {limit:g}"
    if margin is None or measure.stable_count == 0:
        return ""
    if measure.met:
        return ""
    bound = measure.low if name in GOOD else measure.high
    return (
        f"{name}: difference {measure.difference:+.4g}, between {measure.low:+.4g} and "
        f"{measure.high:+.4g}; the worse end is {bound:+.4g} and must come within {margin:g}"
        f"{more(measure, margin)}"
    )


def more(measure: Measure, margin: float) -> str:
    """Return about how many more observations would do, if the difference stays as it is."""
    harm = -measure.difference if measure.metric in GOOD else measure.difference
    width = (measure.high - measure.low) / 2.0
    if harm >= margin or width <= 0.0:
        return ""
    count = measure.candidate_count * ((width / (margin - harm)) ** 2 - 1.0)
    return f" (about {max(math.ceil(count), 1)} more observations)"


def beyond(metric: str, value: float, limit: float) -> bool:
    """Whether a value breaks an absolute limit."""
    return value < limit if metric in GOOD else value > limit


# -- acts of people


def start(
    plan: RolloutPlan, present: RolloutState | None, *, run: str, now_s: float, by: str, why: str
) -> Move:
    """Start a rollout, or start it again after its end."""
    if present is not None and present.is_watched:
        raise MoveRefused(f"rollout {plan.name!r} is {present.phase}; abort it first")
    state = RolloutState(
        name=plan.name,
        run=run,
        salt=f"{plan.name}:{run}",
        weight=_weight(plan, 0),
        started_s=now_s,
        since_s=now_s,
        deadline_s=now_s + plan.max_s,
        number=1 if present is None else present.number + 1,
        why=why,
        by=by,
        identity=plan.identity,
    )
    return Move("started", state, why)


def pause(state: RolloutState | None, *, by: str, why: str) -> Move:
    """Hold a rollout at its weight."""
    return _act(state, "paused", {PROGRESSING}, by, why, phase=PAUSED)


def resume(
    plan: RolloutPlan, state: RolloutState | None, *, now_s: float, by: str, why: str
) -> Move:
    """Go on after a pause; a rollout whose time was over gets it again."""
    late = state is not None and now_s >= state.deadline_s
    changes = {"deadline_s": now_s + plan.max_s} if late else {}
    return _act(
        state,
        "resumed",
        {PAUSED},
        by,
        why,
        phase=PROGRESSING,
        waited=True,
        waiting=(),
        **changes,
    )


def promote(state: RolloutState | None, *, now_s: float, by: str, why: str) -> Move:
    """Send everything to the candidate now, whatever the evidence."""
    return _act(
        state, "promoted", LIVE, by, why, phase=PROMOTED, weight=1.0, ended_s=now_s, waiting=()
    )


def abort(state: RolloutState | None, *, now_s: float, by: str, why: str) -> Move:
    """Send everything to the stable version now; after a promotion, while it is kept warm."""
    allowed = LIVE | {PROMOTED}
    return _act(
        state, "aborted", allowed, by, why, phase=ABORTED, weight=0.0, ended_s=now_s, waiting=()
    )


# -- helpers


def _act(
    state: RolloutState | None,
    kind: str,
    allowed: frozenset[str] | set[str],
    by: str,
    why: str,
    **changes: object,
) -> Move:
    if state is None:
        raise MoveRefused("the rollout has not been started")
    if state.phase not in allowed:
        raise MoveRefused(f"rollout {state.name!r} is {state.phase}, so it cannot be {kind}")
    return _move(kind, replace(state, by=by), why, **changes)


def _move(kind: str, state: RolloutState, why: str, **changes: object) -> Move:
    moved = replace(state, number=state.number + 1, why=why, **changes)  # type: ignore[arg-type]
    return Move(kind, moved, why)


def _progress(
    plan: RolloutPlan, state: RolloutState, evidence: Evidence, now_s: float
) -> Move | None:
    missing = waiting(plan, state, evidence, now_s)
    if not missing:
        return _advance(plan, state, now_s)
    if missing == (UNTIL_RESUMED,):
        return _move("paused", replace(state, by="tollway"), UNTIL_RESUMED, phase=PAUSED)
    if now_s >= state.deadline_s:
        return _give_up(plan, state, missing, now_s)
    return None


def _retire(
    plan: RolloutPlan, state: RolloutState, evidence: Evidence, now_s: float
) -> Move | None:
    over = now_s >= (state.ended_s or now_s) + plan.keep_s
    if not over or evidence.behind:
        return None
    text = f"{plan.backend} is called no more and may be stopped"
    return _move("retired", replace(state, by="tollway"), text, phase=RETIRED)


def _fail(plan: RolloutPlan, state: RolloutState, why: str, now_s: float) -> Move:
    state = replace(state, by="tollway", failures=state.failures + 1, waiting=())
    if state.failures <= plan.failure_limit and state.phase != PROMOTED:
        text = f"failed analysis {state.failures} of {plan.failure_limit} forgiven: {why}"
        return _move("analysis_failed", state, text, since_s=now_s, epoch=state.epoch + 1)
    return _move("rolled_back", state, why, phase=ROLLED_BACK, weight=0.0, ended_s=now_s)


def _advance(plan: RolloutPlan, state: RolloutState, now_s: float) -> Move:
    state = replace(state, by="tollway", waiting=())
    if state.step + 1 < len(plan.steps):
        weight = _weight(plan, state.step + 1)
        text = f"step {state.step + 2} of {len(plan.steps)}: weight {weight:.0%}"
        return _move(
            "advanced",
            state,
            text,
            step=state.step + 1,
            weight=weight,
            since_s=now_s,
            waited=False,
        )
    if plan.strategy == SHADOW:
        text = "the shadow has met its criteria; promote it to send it requests"
        return _move("passed", state, text, phase=PAUSED)
    text = "every step has met its criteria"
    return _move("promoted", state, text, phase=PROMOTED, weight=1.0, ended_s=now_s)


def _give_up(
    plan: RolloutPlan, state: RolloutState, missing: tuple[str, ...], now_s: float
) -> Move:
    why = f"inconclusive after {plan.max_s:.0f} s: {'; '.join(missing)}"
    state = replace(state, by="tollway", waiting=missing)
    if plan.inconclusive == "abort":
        return _move("aborted", state, why, phase=ABORTED, weight=0.0, ended_s=now_s)
    if plan.inconclusive == "promote":
        return _move("promoted", state, why, phase=PROMOTED, weight=1.0, ended_s=now_s)
    return _move("inconclusive", state, why, phase=PAUSED)


def _weight(plan: RolloutPlan, step: int) -> float:
    return 0.0 if plan.strategy == SHADOW else plan.steps[step].weight


def _worse(criterion: Criterion, measure: Measure) -> str:
    return (
        f"{criterion.metric} is worse than tolerated ({criterion.tolerance:g}): "
        f"{measure.candidate:.4g} against {measure.stable:.4g}, in {measure.candidate_count} and "
        f"{measure.stable_count} observations"
    )


def _side(metric: str) -> str:
    return "at least" if metric in GOOD else "at most"
