"""Reads the rows that learning needs back from the journal and rejects invalid rows.

A journal outlives the version that wrote it and the disk that holds it. Each row is therefore fully
validated before anything is learned from it: a policy that has applied half of a row is worse than
one that has applied none, and a row that raises must not prevent a start.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tollway.gateway.learning.feedback_items import BadFeedback, check_probability, check_quality
from tollway.gateway.routing.request_state import Decision
from tollway.gateway.routing.sinks.records import contexts
from tollway.gateway.storage.journal_format import Row
from tollway.policies.types import Choice, Context

PROBABILITY_MIN = 1e-6
"""Minimum for the gateway's own audits, which may be far below the minimum for clients."""

ARMS_MAX = 65  # a route's backends, plus accepting the reply kept so far
ERROR = 1e-6  # tolerance for sums of probabilities in floating point


class BadRow(ValueError):  # noqa: N818 - reads as what happened
    """A row that cannot be learned from. The message says why."""


def draws(rows: Sequence[Row]) -> list[Decision]:
    """Return the decisions in a request's rows. Raises BadRow if one is damaged."""
    try:
        read = contexts(list(rows))
        for draw in read:
            _check(draw)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise BadRow(f"a decision row is damaged: {type(exc).__name__}: {exc}") from exc
    return read


def known(row: Row) -> dict[str, float]:
    """Return a feedback row's quality for each backend's reply. Raises BadRow if damaged."""
    by_backend = row.get("known")
    if not isinstance(by_backend, Mapping) or not by_backend:
        raise BadRow("a feedback row has no quality for any backend")
    try:
        return {str(backend): check_quality(quality) for backend, quality in by_backend.items()}
    except BadFeedback as exc:
        raise BadRow(f"a feedback row is damaged: {exc}") from exc


def probability(row: Row) -> float:
    """Return the probability of an answer being judged. Raises BadRow if it is invalid."""
    try:
        return check_probability(row.get("probability", 1.0), PROBABILITY_MIN)
    except BadFeedback as exc:
        raise BadRow(f"a feedback row is damaged: {exc}") from exc


def text(row: Row, member: str) -> str:
    """Return a string member of a row. Raises BadRow if it is not a string."""
    value = row.get(member)
    if not isinstance(value, str):
        raise BadRow(f"a row's {member} is {str(value)[:40]!r}, not a string")
    return value


def time_s(row: Row) -> float:
    """Return the time at which a row was written. Raises BadRow if it has none."""
    return _finite(row.get("time"), "time")


def _check(draw: Decision) -> None:
    """Raise ValueError if no policy could have made this decision."""
    _check_choice(draw.choice)
    for name, times in (
        ("reached", draw.choice.reached),
        ("reached_most", draw.choice.reached_most),
    ):
        if not _finite(times, name) >= 0.0:
            raise ValueError(f"{name} is below 0")
    _check_context(draw.context)


def _check_choice(choice: Choice) -> None:
    count = len(choice.arms)
    if not 0 < count <= ARMS_MAX or not all(isinstance(arm, str) for arm in choice.arms):
        raise ValueError(f"the row has {count} arms")
    for name, values in (
        ("pmf", choice.pmf),
        ("quality_hat", choice.quality_hat),
        ("cost_hat_usd", choice.cost_hat_usd),
        ("shadow", choice.shadow or choice.pmf),
    ):
        if len(values) != count or not all(_finite(value, name) >= -ERROR for value in values):
            raise ValueError(f"{name} does not fit {count} arms")
    for name, values in (("pmf", choice.pmf), ("shadow", choice.shadow)):
        if values and abs(sum(values) - 1.0) > ERROR:
            raise ValueError(f"{name} adds up to {sum(values)}")
    if not choice.propensity > 0.0:
        raise ValueError("the chosen arm has probability 0")
    if max(choice.quality_hat) > 1.0 + ERROR:
        raise ValueError("quality_hat is above 1")
    if choice.guarded_by and choice.guarded_by not in choice.arms:
        raise ValueError(f"guarded_by {choice.guarded_by!r} is not one of the arms")
    _finite(choice.shadow_price, "shadow_price")


def _check_context(context: Context) -> None:
    if not isinstance(context.held, str):
        raise ValueError("held is not a string")
    for value in (*context.dense, *context.reply, *(pair[1] for pair in context.sparse)):
        _finite(value, "a feature")
    if any(not isinstance(at, int) or not 0 <= at < 1 << 18 for at, _ in context.sparse):
        raise ValueError("a sparse feature has an invalid index")


def _finite(value: Any, name: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise BadRow(f"{name} is {str(value)[:40]}, not a finite number")
    return float(value)
