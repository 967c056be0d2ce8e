"""Explains the recommended replicas of a backend, as a document and in sentences."""

from typing import Any

from tollway.gateway.scaling.advisor import BackendScaling
from tollway.gateway.scaling.recommendation import Recommendation, Term

_REASONS = {
    "measured": "the load of the last minute",
    "forecast": "the forecast",
    "event": "an event of the calendar",
    "spike": "a spike",
    "damping": "what was wanted before",
    "min": "the minimum",
    "max": "the maximum",
}


def scaling(name: str, one: BackendScaling) -> dict[str, Any]:
    """Return the recommendation of a backend; `replicas` is None until its load is known."""
    now = one.current
    if now is None:
        text = f"{name}: no recommendation yet; the load has not been measured for long enough."
        return {"backend": name, "replicas": None, "story": [text]}
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
        "story": _story(name, one, now),
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
    return lines


def _term(one: BackendScaling, term: Term) -> str:
    text = _REASONS[term.reason]
    if term.reason == "forecast":
        text += f" for {one.plan.target.lead_s:g} s ahead"
    return f"{_count(term.replicas)} for {text}: {term.load:.3g} calls at once."


def _count(replicas: int) -> str:
    return f"{replicas} replica{'' if replicas == 1 else 's'}"
