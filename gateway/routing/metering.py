"""Metering: computes what a call cost from its reply.

The price is that of the called backend, fixed at the time of the call. A complete reply whose usage
cannot be read is charged by its quote and marked `estimated`. `charges` defines the cost of error
replies and of calls without a complete reply.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from tollway.backends import openai_errors
from tollway.backends.documents import reply_document
from tollway.backends.errors import InvalidAnswer, ReportedError, ReportedFailure
from tollway.backends.ports import StreamReader
from tollway.backends.pricing import Price
from tollway.backends.protocols.oip.body import read, split
from tollway.backends.types import Call, Headers, HttpReply, ModelAnswer, Usage
from tollway.backends.validation import Validator
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.routing.charges import (
    BY_ESTIMATE,
    BY_USAGE,
    NOT_RUN,
    Charge,
    estimated,
    given_up,
    refused,
    unanswered,
    used_at_least,
)
from tollway.gateway.routing.plan import Target
from tollway.gateway.security.credentials import refuses_key
from tollway.record import record

ESCALATED = "escalated"
"""What was done with a stream in whose place a cascade's next reply was sent: it was closed."""

log = logging.getLogger(__name__)

USAGE, ESTIMATED, VOID, PENDING = "usage", "estimated", "void", "pending"
"""The provenance of a cost. USAGE: usage that the backend reported or that is certain (one call).
ESTIMATED: the quote or another estimate. VOID: the call certainly did not run. PENDING: a stream in
progress, whose cost is not known yet."""

REPORTED = "reported"
"""The provenance of a cost that the backend itself reported in dollars."""

FAILED = 500
"""The status assumed for an error that stands in place of an answer in a 200 reply."""

OVERLOADED = "overloaded"
"""The error of a call that was not made because the backend was at its concurrency limit."""

HEDGE_LOST = "hedge_lost"
"""The error of a call that was cancelled because another call to its backend answered first."""

LEFT = "client left"
"""The error of a call that was cancelled because its client disconnected."""

GIVEN_UP = frozenset({HEDGE_LOST, LEFT})
"""Errors that are not the backend's fault."""

NO_ANSWER = ModelAnswer()

CALL = Usage()
"""The usage of every call: one request; with a fixed price, all that is charged for."""


@record
class AttemptOutcome:
    """The cost of an attempt and the meaning of its reply.

    `error`: why the request falls back to another backend; empty if the reply may go to the client
    at once. `no_answer`: why a reply that goes to the client holds nothing that can be scored;
    empty if it does. `forbidden`: the reply violates the route's response schema, so it never
    reaches the client. `bug`: our own code failed to read it. `partial`: the reply is incomplete,
    so its usage says nothing about other calls. `charged_by`: the charging rule if no complete
    reply arrived (see `charges`). `abandoned`: what was done with the stream when its client
    disconnected. `refuses_key`: the reply is about the gateway's own credential, so it never goes
    to a client. `is_echo`: it is no evidence about the backend, because another call reports it.
    """

    cost_nano: int
    provenance: str
    usage: Usage | None
    answer: ModelAnswer
    error: str
    partial: bool = False
    refuses_key: bool = False
    no_answer: str = ""
    forbidden: bool = False
    bug: bool = False
    charged_by: str = ""
    abandoned: str = ""
    is_echo: bool = False


def outcome_without_reply(
    quote: Quote, error: str, *, ran: bool, hold_nano: int | None = None, abandoned: str = ""
) -> AttemptOutcome:
    """Return the outcome of a call without a complete reply: charged in full if it may have run.

    `hold_nano` is what a hard budget reserved for it; None if no hard budget applies. `abandoned`:
    what was done with the stream when its client disconnected.
    """
    if not ran:
        return AttemptOutcome(0, VOID, None, NO_ANSWER, error, partial=True, abandoned=abandoned)
    charge = unanswered(quote, hold_nano)
    return AttemptOutcome(
        charge.cost_nano,
        ESTIMATED,
        None,
        NO_ANSWER,
        error,
        partial=True,
        charged_by=charge.rule,
        abandoned=abandoned,
    )


def failed(
    backend: Target,
    report: tuple[int, str, Usage] | None,
    error: str,
    *,
    status: int,
    latency_s: float,
) -> AttemptOutcome:
    """Return the outcome of an error reply; `report`: the cost by the usage that it reports."""
    if report is not None:
        return AttemptOutcome(*report, NO_ANSWER, error, partial=True)
    cost_nano, usage = refused(backend, status, latency_s)
    provenance = VOID if usage is None else USAGE if backend.price.is_fixed else ESTIMATED
    return AttemptOutcome(cost_nano, provenance, usage, NO_ANSWER, error, partial=True)


def evaluate_reply(
    backend: Target, call: Call, reply: HttpReply, body: bytes, *, quote: Quote, latency_s: float
) -> AttemptOutcome:
    """Return the outcome of a complete reply."""
    status = reply.status
    if backend.credential is not None and refuses_key(status, body):
        why = backend.credential.complaint(status)
        return AttemptOutcome(0, VOID, None, NO_ANSWER, why, partial=True, refuses_key=True)
    redirects = 300 <= status < 400 and status in backend.protocol.failover_statuses
    if status >= 400 or redirects:
        failover_statuses = (
            status >= 500 or status in NOT_RUN or status in backend.protocol.failover_statuses
        )
        error = f"status {status}" if failover_statuses else ""
        if redirects:
            error += ", a redirect, which is not followed: check the backend's url"
        report = None if backend.price.is_fixed else reported(backend, call, reply, body)
        used_s = latency_s if reply.usage is None else reply.usage.device_s
        outcome = failed(backend, report, error, status=status, latency_s=used_s)
        return replace(outcome, is_echo=True) if reply.is_echo else outcome
    cost_nano, provenance, usage = (
        (backend.price.call_nano, USAGE, CALL)
        if backend.price.is_fixed
        else price(backend, call, reply, body, quote=quote, latency_s=latency_s)
    )
    if backend.expects is not None:
        try:
            check_response(backend.expects, reply, body)
        except InvalidAnswer as breach:
            error = f"invalid answer: {breach}"
            return AttemptOutcome(cost_nano, provenance, usage, NO_ANSWER, error, forbidden=True)
    payload = call.payload
    try:
        answer = backend.protocol.answer(payload, reply, body)
    except Exception as exc:  # a reply that cannot be read counts as no answer
        parsed = no_answer(backend, exc)
    else:
        return AttemptOutcome(cost_nano, provenance, usage, answer, "")
    if parsed.refused and usage is None:  # nothing was generated, and no usage is reported
        outcome = failed(backend, None, parsed.error, status=FAILED, latency_s=latency_s)
        return replace(outcome, no_answer=parsed.no_answer)
    if status != 200 or not call.body:  # no model was asked, so no answer is missing
        parsed = replace(parsed, no_answer="")
    return AttemptOutcome(
        cost_nano,
        provenance,
        usage,
        parsed.answer,
        parsed.error,
        no_answer=parsed.no_answer,
        bug=parsed.bug,
    )


@record
class Said:
    """What was read from a reply; see `AttemptOutcome` for the fields."""

    answer: ModelAnswer
    error: str = ""
    no_answer: str = ""
    bug: bool = False
    refused: bool = False
    """Whether it is an error in place of an answer, to be charged as an error reply."""


def read_answer(backend: Target, read: Callable[[], ModelAnswer]) -> Said:
    """Read a reply's answer; if it cannot be read, report no answer, and pass the reply on."""
    try:
        return Said(read())
    except Exception as exc:
        return no_answer(backend, exc)


def no_answer(backend: Target, exc: Exception) -> Said:
    """Return the result for a reply whose answer could not be read, by the exception raised."""
    if isinstance(exc, ReportedError):
        why, refused = str(exc), not exc.begun
        if isinstance(exc, ReportedFailure):
            return Said(NO_ANSWER, error=why, refused=refused)
        return Said(NO_ANSWER, no_answer=why, refused=refused)
    if isinstance(exc, InvalidAnswer):
        return Said(NO_ANSWER, no_answer=str(exc))
    # A bug of ours in reading the answer must not keep the reply from the client.
    log.error("the answer of backend %s could not be read", backend.name, exc_info=exc)
    return Said(NO_ANSWER, no_answer=f"unreadable: {type(exc).__name__}", bug=True)


def check_response(contract: Validator, reply: HttpReply, body: bytes) -> None:
    """Raise InvalidAnswer if a reply violates its route's response schema."""
    try:
        head, rest = split(reply.headers, body)
        document = reply_document(reply, head)
        if rest is not None:
            read(document, "outputs", rest)  # raw tensors become `data`, where constraints look
    except ValueError as exc:
        raise InvalidAnswer(str(exc)) from exc
    breach = contract.breach(document)
    if breach is not None:
        raise InvalidAnswer(f"{breach.field} {breach.why}")


def price(
    backend: Target, call: Call, reply: HttpReply, body: bytes, *, quote: Quote, latency_s: float
) -> tuple[int, str, Usage | None]:
    """Return (cost, provenance, usage) of a call that ran, at a price that is not fixed."""
    if (report := reported(backend, call, reply, body)) is not None:
        return report
    if backend.price.per_device_s_nano and not backend.price.output_token_nano:
        # The latency we measured is an upper bound of the device seconds.
        watched = reply.usage or Usage(device_s=latency_s, exact=False)
        sure = watched.exact and not backend.price.is_stale
        return backend.price.cost_nano(watched), USAGE if sure else ESTIMATED, watched
    return quote.expected_nano, ESTIMATED, None


def reported(
    backend: Target, call: Call, reply: HttpReply, body: bytes
) -> tuple[int, str, Usage] | None:
    """Return (cost, provenance, usage) as reported; None unless all charged usage is reported."""
    try:
        report = backend.protocol.usage(call.payload, reply, body)
        if report is not None and backend.price.is_told_by(report):
            return reckoned(backend.price, report)
    except ValueError:
        pass  # NaN, infinite or negative usage counts as not reported
    except Exception:  # a bug of ours; the quote is charged instead
        log.exception("the usage of backend %s could not be read", backend.name)
    return None


def reckoned(price: Price, report: Usage) -> tuple[int, str, Usage]:
    """Return (cost, provenance, usage) of a reported usage; ValueError if it is invalid."""
    cost_nano, more = price.cost_nano(report), report.more
    if more is None:
        sure = report.exact and not price.is_stale
        return cost_nano, USAGE if sure else ESTIMATED, report
    if more.bill is not None:
        return cost_nano, REPORTED, report
    if guessed := price.guesses(report):
        report = replace(report, more=replace(more, guessed=guessed))
    sure = report.exact and not (guessed or more.is_doubtful or price.is_stale)
    return cost_nano, USAGE if sure else ESTIMATED, report


UNDER_WAY = AttemptOutcome(0, PENDING, None, NO_ANSWER, "")
"""The outcome of a stream in progress."""


@record
class Ending:
    """How a stream ended.

    `error`: why it broke off, if it did. `abandoned`: what was done when its client disconnected
    (`close` or `drain`), or ESCALATED. `whole`: the body was read to its end. `latency_s`: the
    duration of the call; `silence_s`: the part of it before the first text.
    """

    latency_s: float
    silence_s: float
    error: str = ""
    abandoned: str = ""
    whole: bool = False


def evaluate_stream(
    backend: Target,
    follower: StreamReader,
    headers: Headers,
    ending: Ending,
    *,
    quote: Quote,
    rate: TokenRate,
    hold_nano: int | None = None,
) -> AttemptOutcome:
    """Return the outcome of a stream that has ended, broken off, or lost its client.

    It is charged by the usage reported at its end. Without a report, a complete stream is charged
    by the usage observed or by its quote, whichever is more. Any other stream is charged by the
    reservation of a hard budget (`hold_nano`) or, if none applies, by the usage observed.
    """
    error = ending.error or (openai_errors.text_of(follower.error) if follower.error else "")
    skip = error or ending.abandoned
    parsed = Said(NO_ANSWER) if skip else read_answer(backend, follower.answer)
    outcome = AttemptOutcome(
        0,
        USAGE,
        Usage(),
        parsed.answer,
        error or parsed.error,
        no_answer=parsed.no_answer,
        bug=parsed.bug,
        abandoned=ending.abandoned,
        charged_by=BY_USAGE if skip else "",
    )
    if backend.price.is_fixed:
        cost_nano = backend.price.cost_nano(Usage())
        return replace(outcome, cost_nano=cost_nano, partial=not ending.whole)
    report = None
    try:
        report = follower.reported_usage(headers)
        if report is not None and report.exact and backend.price.is_told_by(report):
            cost_nano, provenance, usage = reckoned(backend.price, report)
            return replace(
                outcome,
                cost_nano=cost_nano,
                provenance=provenance,
                usage=usage,
                partial=not ending.whole,
            )
    except ValueError:
        report = None  # NaN, infinite or negative usage counts as not reported
    tokens = rate.tokens(follower.spoken_bytes, ending.silence_s)
    seen = used_at_least(quote, report, tokens, ending.latency_s)
    charge = estimated(backend.price, seen)
    if ending.abandoned == ESCALATED:
        # It ran on, unread, until another reply replaced it: presumably to its end.
        charge = Charge(max(charge.cost_nano, quote.expected_nano), BY_ESTIMATE)
    if ending.whole and not outcome.error:
        charge = Charge(max(charge.cost_nano, quote.expected_nano), BY_ESTIMATE)
    else:
        charge = given_up(charge.cost_nano, hold_nano)
    return replace(
        outcome,
        cost_nano=charge.cost_nano,
        provenance=ESTIMATED,
        usage=seen,
        partial=True,
        charged_by=charge.rule,
    )
