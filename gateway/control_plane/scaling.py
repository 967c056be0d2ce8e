"""Explains the recommended replicas of a backend, as a document and in sentences."""

from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.scaling.advisor import BackendScaling
from tollway.gateway.scaling.recommendation import Recommendation, Term
from tollway.gateway.scaling.scaler import Scaler

_REASONS = {
    "measured": "the load of the last minute",
    "forecast": "the forecast",
    "event": "an event of the calendar",
    "reserve": "the reserve",
    "spike": "a spike",
    "waiting": "calls that wait for the first replica",
    "damping": "what was wanted before",
    "min": "the minimum",
    "max": "the maximum",
    "floor": "an accuracy floor that needs it",
    "budget": "what its budget pays for",
}


def all_of(owner: Scaler) -> dict[str, Any]:
    """Return the recommendations of all backends."""
    known = owner.advisor.backends
    return {"scaling": [scaling(name, one, owner) for name, one in known.items()]}


def scaling(name: str, one: BackendScaling, owner: Scaler | None = None) -> dict[str, Any]:
    """Return the recommendation of a backend; `replicas` is None until its load is known.

    `owner` knows what was set.
    """
    now = one.current
    if now is None:
        text = f"{name}: no recommendation yet; the load has not been measured for long enough."
        return {"backend": name, "replicas": None, "story": [text]}
    acted = None if owner is None else owner.described(name)
    coming = one.coming
    return {
        "backend": name,
        "replicas": now.replicas,
        "reason": now.reason,
        "wanted": now.wanted,
        "min": now.bounds.least,
        "max": now.bounds.most,
        "rate_per_s": one.meter.rate_per_s,
        "service_s": one.meter.service_s,
        "terms": [
            {"reason": term.reason, "load": term.load, "replicas": term.replicas}
            for term in now.terms
        ],
        "coming": None
        if coming is None
        else {"replicas": coming.replicas, "in_s": coming.in_s, "reason": coming.reason},
        "forecast_error": one.forecast_error,
        "action": acted,
        "money": _money(one, now),
        "story": [*_story(name, one, now), *_acted(acted)],
    }


def _money(one: BackendScaling, now: Recommendation) -> dict[str, Any] | None:
    """Return what the recommended replicas cost; None if the price of one is not known."""
    price = one.plan.replica_nano_per_hour
    if price is None:
        return None
    load = one.meter.load
    busy = min(1.0, load / (now.replicas * one.plan.target.places)) if now.replicas else 0.0
    return {
        "usd_per_hour": to_usd(now.replicas * price),
        "idle_share": 1.0 - busy,
        "idle_usd_per_hour": to_usd(round(now.replicas * price * (1.0 - busy))),
    }


def _story(name: str, one: BackendScaling, now: Recommendation) -> list[str]:
    target, meter = one.plan.target, one.meter
    lines = [
        f"{name}: {_count(now.replicas)} recommended, decided by {_REASONS[now.reason]}.",
        f"{meter.rate_per_s:.3g} calls per second of {meter.service_s:.3g} s each; a replica "
        f"serves {target.places} at once, at a target utilization of {target.utilization:.0%}.",
        *(_term(one, term) for term in now.terms),
    ]
    if now.steady != now.wanted:
        lines.append(
            f"Damped to {now.steady}: more are recommended after {target.up_s:g} s, fewer after "
            f"{target.down_s:g} s."
        )
    lines.append(f"Bounds at this time: {now.bounds.least} to {now.bounds.most}.")
    if one.plan.floor_routes:
        routes = ", ".join(one.plan.floor_routes)
        lines.append(f"At least one is kept for the accuracy floor of: {routes}.")
    if one.coming is not None:
        why = "the schedule says so" if one.coming.reason == "max" else "the busier time is over"
        minutes = one.coming.in_s / 60
        lines.append(
            f"In {minutes:.3g} minutes {_count(one.coming.replicas)} will be recommended if the "
            f"load stays as it is: {why}."
        )
    if one.forecast_error is not None:
        lines.append(f"In the last hours the forecast was off by {one.forecast_error:.0%}.")
    money = _money(one, now)
    if money is not None:
        lines.append(
            f"They cost ${money['usd_per_hour']:.4g} per hour, ${money['idle_usd_per_hour']:.4g} "
            f"of it idle ({money['idle_share']:.0%})."
        )
    return lines


def _acted(acted: dict[str, Any] | None) -> list[str]:
    if acted is None:
        return []
    if acted["replicas"] is None:
        lines = ["Nothing has been set yet."]
    elif acted["dry_run"]:
        lines = [f"Dry run: {_count(acted['replicas'])} would be set."]
    else:
        lines = [f"{_count(acted['replicas'])} set last."]
    if acted["held"]:
        lines.append(f"No change is made now: {acted['held']}.")
    elif acted["failures"]:
        lines.append(f"{acted['pending']} could not be set, {acted['failures']} times in a row.")
    return lines


def _term(one: BackendScaling, term: Term) -> str:
    text = _REASONS[term.reason]
    if term.reason == "forecast":
        text += f" for {one.plan.target.lead_s:g} s ahead"
    return f"{_count(term.replicas)} for {text}: {term.load:.3g} calls at once."


def _count(replicas: int) -> str:
    return f"{replicas} replica{'' if replicas == 1 else 's'}"
