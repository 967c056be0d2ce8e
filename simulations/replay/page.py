"""The page of a replay: a chart of each policy's quality over its cost, and the table."""

from collections.abc import Sequence

from tollway.simulations.replay.bounded import Bounded
from tollway.simulations.replay.estimators import Estimate, Refused
from tollway.simulations.replay.logs import Log
from tollway.simulations.replay.replay import Answer, Outcome
from tollway.simulations.report import page as report
from tollway.simulations.report.page import Axis, Series


def page(log: Log, outcomes: Sequence[Outcome], notes: Sequence[str], alpha: float) -> str:
    """Return the page."""
    answered = [
        (one.label, one.quality, one.cost_usd)
        for one in outcomes
        if isinstance(one.quality, Estimate) and isinstance(one.cost_usd, Estimate)
    ]
    refused = [
        (one.label, str(one.quality)) for one in outcomes if isinstance(one.quality, Refused)
    ]
    percent = f"{1 - alpha:.0%}"
    dots = Series(
        "policies",
        [cost.value * 1000.0 for _, _, cost in answered],
        [quality.value for _, quality, _ in answered],
        [quality.low for _, quality, _ in answered],
        [quality.high for _, quality, _ in answered],
        style="dots",
        names=[label.removeprefix("fixed:arm=") for label, _, _ in answered],
    )
    head = ["policy", "quality", "gain", "$ per 1,000", "saving", "effective sample"]
    chart = report.plot(
        [dots],
        Axis("dollars per 1,000 requests"),
        Axis("quality", percent=True),
        f"Estimated quality and cost of each policy, with {percent} intervals of quality.",
    )
    table = report.table(head, [_row(one) for one in outcomes])
    parts = [*([chart] if answered else []), report.section("Policies", table)]
    if refused:
        table = report.table(["policy", "reason and remedy"], refused)
        parts.append(report.section("Bounds, or no estimate", table))
    if notes:
        parts.append(report.section("Notes", *(report.text(note) for note in notes)))
    lead = (
        f"Estimates of other policies' quality and cost from {len(log):,} logged decisions over "
        f"{len(log.arms)} arms."
    )
    foot = (
        f"Doubly robust estimates, with {percent} intervals that are valid for small samples. Gain "
        "and saving are differences from the logged policy, on the same decisions."
    )
    return report.page("Replay of other policies", *parts, lead=lead, foot=foot)


def _row(one: Outcome) -> list[str | float | None]:
    saving = None if one.saving is None else "{:.0%} [{:.0%}, {:.0%}]".format(*one.saving)
    was = one.label == "logged"
    return [
        one.label,
        _shown(one.quality, 1.0),
        "" if was else _shown(one.quality_gain, 1.0),
        _shown(one.cost_usd, 1000.0),
        "" if was else saving,
        one.quality.ess,
    ]


def _shown(answer: Answer, scale: float) -> str | None:
    if isinstance(answer, Bounded):
        return f"{answer.low:.3f} to {answer.high:.3f}"
    if isinstance(answer, Refused):
        return None
    if answer.basis == "quotes":
        return f"{answer.value * scale:.3f} by quotes"
    scaled = answer.scaled(scale)
    return f"{scaled.value:.3f} [{scaled.low:.3f}, {scaled.high:.3f}]"
