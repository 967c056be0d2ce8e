"""The page of a replay: a chart of each policy's quality over its cost, and the table."""

from collections.abc import Sequence

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
    head = ["policy", "quality", "gain", "$ per 1,000", "saving", "effective"]
    parts = [
        report.plot(
            [dots],
            Axis("dollars per 1,000 requests"),
            Axis("quality", percent=True),
            f"What each policy would have given and cost, with {percent} intervals of quality.",
        ),
        report.section("Policies", report.table(head, [_row(one) for one in outcomes])),
    ]
    if refused:
        table = report.table(["policy", "why, and what would help"], refused)
        parts.append(report.section("No answer", table))
    if notes:
        parts.append(report.section("Notes", *(report.text(note) for note in notes)))
    lead = f"{len(log):,} logged decisions over {len(log.arms)} arms, asked what others would do."
    foot = (
        f"Doubly robust estimates; {percent} intervals that hold at small samples. Gain and saving "
        "are against what was logged, decision by decision."
    )
    return report.page("What if it had been routed otherwise?", *parts, lead=lead, foot=foot)


def _row(one: Outcome) -> list[str | float | None]:
    saving = None if one.saving is None else "{:.0%} [{:.0%}, {:.0%}]".format(*one.saving)
    was = one.label == "logged"
    return [
        one.label,
        _told(one.quality, 1.0),
        "" if was else _told(one.quality_gain, 1.0),
        _told(one.cost_usd, 1000.0),
        "" if was else saving,
        one.quality.ess,
    ]


def _told(answer: Answer, scale: float) -> str | None:
    if isinstance(answer, Refused):
        return None
    found = answer.scaled(scale)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
