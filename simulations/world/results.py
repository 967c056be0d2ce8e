"""The results of a run: regret, recovery, budgets, quality, latency; per phase and over time.

Theory of operation. A phase is a time in which nothing changes and no budget's window ends. The
benchmark in each phase is the optimum that knows the true quality and cost of every request, within
what the budgets allow: what their windows have left as the phase begins, spread over the remaining
requests. The optimum has a shadow price lambda (the floor's, if the objective is a floor), and a
request's worth is its quality less lambda times its cost. A request's loss is its best worth less
its actual worth, in units of quality. It is never negative except by chance. It is free of the
noise of labels and of luck, because it counts the probability of a right answer and not the answer.
Regret is the mean loss, in points (hundredths of quality). `group` is the same benchmark with
knowledge only of what a policy sees of a request's class.

Recovery from a change is the first time from which SPAN requests lose at most TOLERANCE more than
at the end of the phase; if that end is itself far worse than before the change, it is never.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tollway.gateway.budgets.calendar import window_at
from tollway.gateway.settings import BudgetConfig
from tollway.simulations.world import optimum
from tollway.simulations.world.engine import FAILED, REFUSED, Run
from tollway.simulations.world.scenario import Scenario

Floats = NDArray[np.float64]

BUCKETS = 96  # time buckets of a run: a quarter of an hour of a day
SAMPLE = 20_000  # requests of a phase over which its optimum is solved
SPAN = 500  # requests: their mean loss is known to about half a point
TOLERANCE = 0.015  # a point and a half: above the noise of such a mean
FAR = 0.05  # points by which the end of a phase may be worse than before it
LATE = 0.4  # the last share of a phase, which counts as its end
DIGITS = 9  # of every figure: sums over arrays agree on all machines so far


@dataclass(frozen=True, slots=True)
class Phase:
    """A time in which nothing changes, with requests `first` up to but excluding `last`."""

    says: str
    start_s: float
    end_s: float
    first: int
    last: int
    allowance_usd: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A phase and its benchmarks, with the loss of each of its requests."""

    phase: Phase
    best: optimum.Optimum
    group: optimum.Optimum
    hull: float
    loss: Floats
    worth: float
    group_worth: float


def summarise(run: Run) -> dict[str, Any]:
    """Return the results of a run as JSON types; the same run gives the same figures."""
    judged = [judge(run, phase) for phase in phases(run)]
    loss = np.concatenate([part.loss for part in judged]) if judged else np.zeros(0)
    document = {
        "scenario": run.scenario.name,
        "about": run.scenario.about,
        "policy": run.scenario.route.policy,
        "options": run.scenario.route.policy_options,
        "seed": run.seed,
        "hours": run.scenario.hours,
        "total": _total(run, judged, loss),
        "changes": list(_changes(run, judged)),
        "phases": [_phase(run, part) for part in judged],
        "budgets": budgets(run),
        "backends": _backends(run),
        "over_time": _over_time(run, loss),
        "events": [_event(run, event) for event in run.events],
    }
    rounded: dict[str, Any] = _rounded(document)
    return rounded


# -- phases and their benchmarks


def phases(run: Run) -> Iterator[Phase]:
    """Yield the phases that have requests, in order."""
    scenario, at_s = run.scenario, run.requests.at_s
    pacing = [budget for budget in scenario.budgets if _paces(budget)]
    cuts = {part.start_s: part.says for part in run.truth.stretches}
    for budget in pacing:
        for start_s, _ in _windows(scenario, budget):
            cuts.setdefault(start_s, f"new {budget.window}")
    starts = sorted(cuts)
    spent = np.concatenate([[0.0], np.cumsum(run.cost_usd)])
    for start_s, end_s in zip(starts, [*starts[1:], scenario.seconds], strict=True):
        first, last = (int(np.searchsorted(at_s, t)) for t in (start_s, end_s))
        if last > first:
            left = [_allowance(run, budget, start_s, first, spent) for budget in pacing]
            yield Phase(cuts[start_s], start_s, end_s, first, last, min(left, default=None))


def _paces(budget: BudgetConfig) -> bool:
    """Whether a budget applies to all requests of a window, so that it should be paced.

    This includes a budget that is only a cap: the benchmark shows what pacing would have gained.
    """
    configured = budget.to_budget()
    spread = (
        configured.window != "lifetime"
        and configured.enforcement != "soft"
        and configured.scope.backend is None
    )
    return spread and not (configured.scope.tenant or configured.scope.tags)


def _windows(scenario: Scenario, budget: BudgetConfig) -> Iterator[tuple[float, float]]:
    """Yield the (start, end) of a budget's windows, in seconds from the scenario's start."""
    at_s = 0.0
    while at_s < scenario.seconds:
        span = window_at(budget.window, budget.timezone, scenario.start_s + at_s)
        assert span.end_s is not None
        yield max(0.0, span.start_s - scenario.start_s), span.end_s - scenario.start_s
        at_s = span.end_s - scenario.start_s


def _limit_usd(scenario: Scenario, budget: BudgetConfig, at_s: float) -> float:
    """Return a budget's limit at a time."""
    limit = budget.limit_usd
    for change in sorted(scenario.changes, key=lambda change: change.at_h):
        if change.budget == budget.name and change.at_h * 3600.0 <= at_s:
            assert change.limit_usd is not None
            limit = change.limit_usd
    return float(limit)


def _allowance(run: Run, budget: BudgetConfig, at_s: float, first: int, spent: Floats) -> float:
    """Return a budget's allowance per request from a time to its window's end."""
    scenario, times = run.scenario, run.requests.at_s
    start_s, end_s = next(span for span in _windows(scenario, budget) if span[0] <= at_s < span[1])
    begun = int(np.searchsorted(times, start_s))
    left = max(0.0, _limit_usd(scenario, budget, at_s) - float(spent[first] - spent[begun]))
    within = min(end_s, scenario.seconds)
    to_come = int(np.searchsorted(times, within)) - first
    # A window that extends past the scenario's end is assumed to continue at the same rate.
    return left / max(1.0, to_come * (end_s - at_s) / max(1.0, within - at_s))


def judge(run: Run, phase: Phase) -> Judged:
    """Compare a phase with its benchmarks."""
    at = slice(phase.first, phase.last)
    offered = run.truth.offered[at]
    quality = np.where(offered, run.truth.quality[at], -np.inf)
    cost = np.where(offered, run.truth.cost_usd[at], 0.0)
    quality = np.where(offered.any(axis=1, keepdims=True), quality, 0.0)
    shown, kinds = run.requests.shown[at], len(run.requests.kinds)
    mean_quality = optimum.by_group(quality, shown, kinds)
    mean_cost = optimum.by_group(cost, shown, kinds)
    sample = slice(0, None, max(1, len(quality) // SAMPLE))
    best = _solve(run, quality[sample], cost[sample], phase.allowance_usd)
    group = _solve(run, mean_quality[sample], mean_cost[sample], phase.allowance_usd)
    worth = chance(run)[at] - best.price * run.cost_usd[at]
    most = (quality - best.price * cost).max(axis=1)
    if run.scenario.route.objective != "min_cost":
        most = np.maximum(most, 0.0)  # not to answer; a floor is on all requests
    arms = np.where(offered, run.truth.quality[at], 0.0).mean(axis=0)
    return Judged(
        phase,
        best,
        group,
        optimum.hull(arms, cost.mean(axis=0), float(run.cost_usd[at].mean())),
        most - worth,
        float((chance(run)[at] - group.price * run.cost_usd[at]).mean()),
        group.quality - group.price * group.cost_usd,
    )


def _solve(run: Run, quality: Floats, cost: Floats, allowance_usd: float | None) -> optimum.Optimum:
    route = run.scenario.route
    paced = optimum.for_budget(quality, cost, np.inf if allowance_usd is None else allowance_usd)
    if route.objective == "min_cost":
        assert route.accuracy_floor is not None
        held = optimum.for_floor(quality, cost, route.accuracy_floor)
        return held
    if route.objective == "value":
        assert route.value_per_correct_usd is not None
        price = 1.0 / route.value_per_correct_usd
        if price > paced.price:
            return optimum.Optimum(*optimum.at(quality, cost, price), price)
    return paced


def chance(run: Run) -> Floats:
    """Return the probability that each answer was right; 0 without an answer.

    In a cascade, return whether it was right: an answer is kept because of its content.
    """
    if run.scenario.route.cascade:
        return run.right.astype(float)
    rows = np.arange(len(run.arm))
    qualities: Floats = np.where(run.arm >= 0, run.truth.quality[rows, np.maximum(run.arm, 0)], 0.0)
    return qualities


# -- figures


def _total(run: Run, judged: list[Judged], loss: Floats) -> dict[str, Any]:
    count = len(run.arm)
    if not count:
        return {"requests": 0}
    weights = [part.phase.last - part.phase.first for part in judged]

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=weights))

    windows = budgets(run)
    floor = run.scenario.route.accuracy_floor
    return {
        "requests": count,
        **_part(run, slice(0, count)),
        "best_quality": mean([part.best.quality for part in judged]),
        "group_quality": mean([part.group.quality for part in judged]),
        "over_hull_points": 100.0
        * (float(chance(run).mean()) - mean([part.hull for part in judged])),
        "regret_points": 100.0 * float(loss.mean()),
        "group_regret_points": 100.0 * mean([p.group_worth - p.worth for p in judged]),
        "best_cost_usd_per_1k": 1000.0 * mean([part.best.cost_usd for part in judged]),
        "floor": floor,
        "over_floor_points": None if floor is None else 100.0 * (chance(run).mean() - floor),
        "spent_share": max((w["spent_share"] for w in windows), default=None),
        "overspent_usd": sum(w["overspent_usd"] for w in windows),
        "labels": run.labels,
        "explored_usd": run.explored_usd,
        "unhappy": sum(load.turned_away for load in run.loads),
    }


def _part(run: Run, at: slice) -> dict[str, Any]:
    """Return the basic figures of some requests."""
    arm = run.arm[at]
    latency = run.latency_s[at][arm >= 0]
    p50, p99 = np.quantile(latency, (0.5, 0.99)) if len(latency) else (None, None)
    return {
        "quality": float(chance(run)[at].mean()),
        "right": float(run.right[at].mean()),
        "cost_usd_per_1k": 1000.0 * float(run.cost_usd[at].mean()),
        "refused": float((arm == REFUSED).mean()),
        "failed": float((arm == FAILED).mean()),
        "fallbacks": float(run.fallback[at].mean()),
        "p50_s": p50,
        "p99_s": p99,
    }


def _phase(run: Run, part: Judged) -> dict[str, Any]:
    phase = part.phase
    allowance = phase.allowance_usd
    return {
        "says": phase.says,
        "start_h": phase.start_s / 3600.0,
        "end_h": phase.end_s / 3600.0,
        "requests": phase.last - phase.first,
        **_part(run, slice(phase.first, phase.last)),
        "allowance_usd_per_1k": None if allowance is None else 1000.0 * allowance,
        "best_quality": part.best.quality,
        "group_quality": part.group.quality,
        "hull_quality": part.hull,
        "shadow_price": part.best.price,
        "regret_points": 100.0 * float(part.loss.mean()),
        "group_regret_points": 100.0 * (part.group_worth - part.worth),
        "arms": _shares(run, slice(phase.first, phase.last)),
    }


def _shares(run: Run, at: slice) -> dict[str, float]:
    return {
        backend.name: float((run.arm[at] == number).mean())
        for number, backend in enumerate(run.scenario.backends)
    }


def _changes(run: Run, judged: list[Judged]) -> Iterator[dict[str, Any]]:
    """Yield every change with the time it took to recover from it."""
    starts = {part.start_s for part in run.truth.stretches[1:]}
    for number, part in enumerate(judged):
        if part.phase.start_s not in starts:
            continue
        before = judged[number - 1].loss if number else np.zeros(0)
        document = {"says": part.phase.says, "at_h": part.phase.start_s / 3600.0}
        yield {**document, **_recovery(run, part, before)}


def _recovery(run: Run, part: Judged, before: Floats) -> dict[str, Any]:
    loss, span = part.loss, min(SPAN, max(1, len(part.loss) // 5))
    late = float(loss[-max(1, int(LATE * len(loss))) :].mean())
    earlier = float(before[-max(1, int(LATE * len(before))) :].mean()) if len(before) else late
    sums = np.concatenate([[0.0], np.cumsum(loss)])
    means = (sums[span:] - sums[:-span]) / span
    good = np.flatnonzero(means <= late + TOLERANCE)
    requests = int(good[0]) if len(good) else None
    never = requests is None or late > earlier + FAR
    at_s = run.requests.at_s
    took_s = None if never or requests is None else _from(at_s, part.phase, requests)
    return {
        "recovery_s": took_s,
        "recovery_requests": None if never else requests,
        "regret_before_points": 100.0 * earlier,
        "regret_after_points": 100.0 * late,
        "lost": float(np.maximum(loss[: requests or 0] - late, 0.0).sum()),
    }


def _from(at_s: Floats, phase: Phase, requests: int) -> float:
    """Return how long after a phase's start its first `requests` requests had arrived."""
    return 0.0 if not requests else float(at_s[phase.first + requests] - phase.start_s)


def budgets(run: Run) -> list[dict[str, Any]]:
    """Return every window of every budget: limit, spend and overspend."""
    configured = {budget.name: budget for budget in run.scenario.budgets}
    documents = []
    for window in run.budgets:
        limit, spent = window["limit_usd"], window["spent_usd"]
        documents.append(
            {
                **window,
                "enforcement": configured[window["budget"]].enforcement,
                "spent_share": spent / limit if limit else None,
                "overspent_usd": max(0.0, spent - limit),
            }
        )
    return documents


def _backends(run: Run) -> list[dict[str, Any]]:
    seconds = run.scenario.seconds
    return [
        {
            "name": backend.name,
            "share": float((run.arm == number).mean()),
            "calls": load.calls,
            "turned_away": load.turned_away,
            "utilization": load.busy_s / (backend.servers * seconds),
            "mean_wait_s": load.waited_s / load.calls if load.calls else 0.0,
        }
        for number, (backend, load) in enumerate(zip(run.scenario.backends, run.loads, strict=True))
    ]


def _event(run: Run, event: dict[str, Any]) -> dict[str, Any]:
    hours = (event["time"] - run.scenario.start_s) / 3600.0
    return {"at_h": hours, "kind": event["kind"], "about": event["about"], "text": event["text"]}


def _over_time(run: Run, loss: Floats) -> dict[str, Any]:
    """Return the run in BUCKETS equal time buckets; None where no request arrived."""
    edges = np.linspace(0.0, run.scenario.seconds, BUCKETS + 1)
    places = np.searchsorted(run.requests.at_s, edges)
    slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(places)]
    parts = [_part(run, at) if at.stop > at.start else None for at in slices]
    losses = [100.0 * float(loss[at].mean()) if at.stop > at.start else None for at in slices]
    keys = ("quality", "cost_usd_per_1k", "refused", "failed", "p50_s", "p99_s")
    columns = {key: [part[key] if part else None for part in parts] for key in keys}
    middles = [float(a + b) / 7200.0 for a, b in itertools.pairwise(edges)]
    return {
        "at_h": middles,
        "requests": [at.stop - at.start for at in slices],
        "regret_points": losses,
        **columns,
        "arms": {
            backend.name: [
                float((run.arm[at] == number).mean()) if at.stop > at.start else None
                for at in slices
            ]
            for number, backend in enumerate(run.scenario.backends)
        },
    }


def to_json(document: Any) -> bytes:
    """Return results as JSON text; the same results give the same bytes."""
    indented: bytes = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    return indented + b"\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return round(float(value), DIGITS)
    return value
