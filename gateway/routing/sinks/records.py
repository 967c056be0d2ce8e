"""Journal rows of a request: one per decision, one per attempt, one per end of a stream."""

from itertools import chain
from typing import Any

from tollway.backends.types import Details
from tollway.gateway.routing.cached import saving
from tollway.gateway.routing.request_state import Attempt, Decision, RequestState
from tollway.gateway.routing.sinks import budget_effect
from tollway.gateway.storage.journal_format import Row
from tollway.policies.types import Choice, Context

ANSWER_VALUES_MAX = 1 << 15
"""Values of an answer that is journalled: they fill a row that can be looked up for feedback. All
rows that wait to be written share 32 MiB, so larger ones would push out those of other tenants."""

CHARS_A_VALUE = 4  # of a text: six bytes each in the worst case, and a number has 20
_NUMBERS = {int, float}


def rows(state: RequestState, time_s: float) -> list[Row]:
    """Return the journal rows of a finished request: one per draw, one per attempt."""
    head = _head(state, time_s)
    draws = [_draw(state, draw, head) for draw in state.draws]
    if state.inference.joined is not None:
        draws[0]["features"] = state.inference.joined.row()
    return draws + [
        _attempt("attempt", head, number, attempt) for number, attempt in enumerate(state.attempts)
    ]


def audit_row(state: RequestState, attempt: Attempt, time_s: float) -> Row:
    """Return the row of an audit, which follows the rows of the request that it audits."""
    row = _attempt("attempt", _head(state, time_s), len(state.attempts), attempt)
    row["audit"] = attempt.audit
    return row


def settlement_row(state: RequestState, number: int, attempt: Attempt, time_s: float) -> Row:
    """Return the row with the final cost of a stream; the row of its attempt says 0."""
    return _attempt("settlement", _head(state, time_s), number, attempt)


def _head(state: RequestState, time_s: float) -> Row:
    inference = state.inference
    return {
        "id": state.id,
        "time": round(time_s, 6),
        "route": inference.route.name,
        "tenant": inference.tenant,
        "tags": inference.tags,
    }


def _draw(state: RequestState, draw: Decision, head: Row) -> Row:
    choice, context = draw.choice, draw.context
    drawn = choice.index
    row: Row = {
        "kind": "decision",
        **head,
        "stage": draw.stage,
        "arm": choice.arms[drawn],
        "propensity": choice.pmf[drawn],
        "arms": choice.arms,
        "pmf": choice.pmf,
        "quality_hat": choice.quality_hat,
        "cost_hat_usd": choice.cost_hat_usd,
        "shadow_price": choice.shadow_price,
        "reason": choice.reason,
        "redrawn": draw.redrawn,
        "policy_version": choice.version,
        "dense": context.dense,
        "sparse": context.sparse,
        "reply": context.reply,
        "held": context.held,
    }
    if choice.shadow:
        row["shadow"] = choice.shadow
    if choice.reached != 1.0:
        row["reached"] = choice.reached
    if choice.reached_most != 1.0:
        row["reached_most"] = choice.reached_most
    if context.unit >= 0.0:
        row["unit"] = context.unit
    if choice.guarded_by:
        row["guarded_by"] = choice.guarded_by
    if state.left_out:
        row["left_out"] = state.left_out
    if state.inference.cache_result:
        row.update(saving.fields(state))
    if state.prompt is not None and any(cached := _cached(state, choice.arms)):
        row["cached_hat"] = cached
    if state.refusals or state.inference.route.paced_by:
        row.update(budget_effect.fields(state, draw))
    return row


def _cached(state: RequestState, arms: tuple[str, ...]) -> tuple[int, ...]:
    """Return the input tokens that each arm was expected to have in its prompt cache."""
    quotes = [state.quotes.get(arm) for arm in arms]
    return tuple([round(quote.usage.cached_input_tokens) if quote else 0 for quote in quotes])


def _attempt(kind: str, head: Row, number: int, attempt: Attempt) -> Row:
    outcome = attempt.outcome
    answer = outcome.answer.value
    row: Row = {
        "kind": kind,
        **head,
        "attempt": number,
        "backend": attempt.backend,
        "fallback": attempt.fallback,
        "status": attempt.status,
        "error": outcome.error,
        "cost_nano": outcome.cost_nano,
        "provenance": outcome.provenance,
        "expected_nano": attempt.quote.expected_nano,
        "ceiling_nano": attempt.quote.ceiling_nano,
        "reserved_nano": attempt.reserved_nano,
        "latency_s": round(attempt.latency_s, 6),
        "answer": answer if answer.__class__ is int or answer is None else _recorded(answer),
    }
    if outcome.no_answer:
        row["no_answer"] = outcome.no_answer
    if outcome.usage is not None:
        row["device_s"] = outcome.usage.device_s
        row["input_tokens"] = outcome.usage.input_tokens
        row["cached_input_tokens"] = outcome.usage.cached_input_tokens
        row["output_tokens"] = outcome.usage.output_tokens
        if outcome.usage.more is not None:
            row.update(_details(outcome.usage.more))
    if outcome.abandoned:
        row["abandoned"] = outcome.abandoned
    if outcome.charged_by:
        row["charged_by"] = outcome.charged_by
    if attempt.output_limit:
        row["output_limit"] = attempt.output_limit
    if attempt.hedge_s is not None:
        row["hedge_s"] = round(attempt.hedge_s, 6)
    return row


def _recorded(answer: Any) -> Any:
    """Return an answer for the journal; None if it is too large."""
    return answer if _values(answer) <= ANSWER_VALUES_MAX else None


def _values(answer: Any) -> int:
    """Return how many values an answer has; more than ANSWER_VALUES_MAX once it has too many."""
    if isinstance(answer, str):
        return 1 + len(answer) // CHARS_A_VALUE
    if not isinstance(answer, list | dict):
        return 1
    count = len(answer)
    if count <= ANSWER_VALUES_MAX and not set(map(type, answer)) <= _NUMBERS:
        for inner in chain(answer, answer.values()) if isinstance(answer, dict) else answer:
            count += _values(inner)
            if count > ANSWER_VALUES_MAX:
                break
    return count


def _details(more: Details) -> Row:
    """Return the row fields of usage that few calls report; absent values are omitted."""
    row: Row = dict(more.units)
    if more.service_tier:
        row["service_tier"] = more.service_tier
    if more.guessed:
        row["guessed"] = more.guessed
    return row


def contexts(group: list[Row]) -> list[Decision]:
    """Rebuild the draws from a decision's rows: all that learning needs, as it was drawn."""
    return [
        Decision(
            row["stage"],
            Context(
                tuple(row["dense"]),
                tuple((index, value) for index, value in row["sparse"]),
                tuple(row["reply"]),
                row["held"],
            ),
            Choice(
                tuple(row["arms"]),
                tuple(row["pmf"]),
                row["arms"].index(row["arm"]),
                tuple(row["quality_hat"]),
                tuple(row["cost_hat_usd"]),
                row["shadow_price"],
                row["reason"],
                row["policy_version"],
                tuple(row.get("shadow", ())),
                row.get("reached", 1.0),
                row.get("guarded_by", ""),
                reached_most=row.get("reached_most", max(row.get("reached", 1.0), 1.0)),
            ),
            row["redrawn"],
        )
        for row in group
        if row["kind"] == "decision"
    ]
