"""Metering: what a call has cost, from what came back.

The price is that of the backend called, bound when it was called. A whole reply whose usage cannot
be read is charged by its quote, marked `estimated`. What error replies and calls without a complete
reply cost is said in `charges`.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from tollway.backends.documents import load_reply
from tollway.backends.pricing import Price
from tollway.backends.protocols.oip.body import read, split
from tollway.backends.types import (
    Call,
    Headers,
    HttpReply,
    InvalidAnswer,
    ModelAnswer,
    ReportedError,
    ReportedFailure,
    StreamReader,
    Usage,
    record,
)
from tollway.backends.validation import Validator
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.routing.backend import NO_PAYLOAD, Backend
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
from tollway.gateway.security.credentials import refuses_key

log = logging.getLogger("tollway.metering")

USAGE, ESTIMATED, VOID, PENDING = "usage", "estimated", "void", "pending"
"""Where a cost comes from: usage that the backend told or that is certain (a call), the quote, or
nowhere: the call certainly did not run. Of a stream under way it is not known yet."""

REPORTED = "reported"
"""Where a cost comes from that the backend itself said in dollars."""

FAILED = 500
"""The status of which an error in place of an answer is taken to be, where the reply's is 200."""

OVERLOADED = "overloaded"
"""The error of a call that was not made, because the backend had enough to do."""

HEDGE_LOST = "outrun"
"""The error of a call that was given up because another, of the same backend, had answered."""

LEFT = "client left"
"""The error of a call that was given up because its client had left."""

GIVEN_UP = frozenset({HEDGE_LOST, LEFT})
"""Errors that are none of the backend's."""

NO_ANSWER = ModelAnswer()

CALL = Usage()
"""What every call uses; all of it where the price is fixed."""


@record
class AttemptOutcome:
    """What an attempt has cost, and what its reply says.

    `error` says why another backend is asked instead; empty where the reply may go to the client
    at once. `no_answer` says why a reply that goes to the client holds nothing that can be scored;
    empty where it does. `forbidden`: the reply breaks the route's `answers`, so it never reaches
    the client. `bug`: our own code failed to read it. `partial`: the client left before the end,
    so the usage says nothing of others. `charged_by`: where no complete reply came, the rule that
    the cost follows (see `charges`). `abandoned`: where its client left, what was done then.
    `refuses_key`: the reply is about the gateway's own credential, so it never goes to a client.
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

    @property
    def ran(self) -> bool:
        """Whether the backend did the work, or may have."""
        return self.provenance != VOID


def outcome_without_reply(
    quote: Quote, error: str, *, ran: bool, hold_nano: int | None = None, abandoned: str = ""
) -> AttemptOutcome:
    """Judge a call that brought no whole reply: charged in full where it may have run.

    `hold_nano` is what a hard budget holds for it; None where none binds it. `abandoned`: where
    its client left, what was done then.
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
    backend: Backend,
    told: tuple[int, str, Usage] | None,
    error: str,
    *,
    status: int,
    latency_s: float,
) -> AttemptOutcome:
    """Judge an error reply; `told` is what its own report of usage makes it cost."""
    if told is not None:
        return AttemptOutcome(*told, NO_ANSWER, error, partial=True)
    cost_nano, usage = refused(backend, status, latency_s)
    provenance = VOID if usage is None else USAGE if backend.price.is_fixed else ESTIMATED
    return AttemptOutcome(cost_nano, provenance, usage, NO_ANSWER, error, partial=True)


def evaluate_reply(
    backend: Backend, call: Call, reply: HttpReply, body: bytes, *, quote: Quote, latency_s: float
) -> AttemptOutcome:
    """Judge a whole reply."""
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
        told = None if backend.price.is_fixed else reported(backend, call, reply, body)
        return failed(backend, told, error, status=status, latency_s=latency_s)
    cost_nano, provenance, usage = price(
        backend, call, reply, body, quote=quote, latency_s=latency_s
    )
    if backend.expects is not None:
        try:
            check_response(backend.expects, reply.headers, body)
        except InvalidAnswer as breach:
            error = f"invalid answer: {breach}"
            return AttemptOutcome(cost_nano, provenance, usage, NO_ANSWER, error, forbidden=True)
    payload = call.payload or NO_PAYLOAD
    try:
        answer = backend.protocol.answer(payload, reply, body)
    except Exception as exc:  # whatever cannot be read is no answer
        said = no_answer(backend, exc)
    else:
        return AttemptOutcome(cost_nano, provenance, usage, answer, "")
    if said.refused and usage is None:  # nothing was generated, and no usage is reported
        outcome = failed(backend, None, said.error, status=FAILED, latency_s=latency_s)
        return replace(outcome, no_answer=said.no_answer)
    if status != 200 or not call.body:  # no model was asked, so no answer is missing
        said = replace(said, no_answer="")
    return AttemptOutcome(
        cost_nano,
        provenance,
        usage,
        said.answer,
        said.error,
        no_answer=said.no_answer,
        bug=said.bug,
    )


@record
class Said:
    """What a reply says; see `AttemptOutcome` for the parts."""

    answer: ModelAnswer
    error: str = ""
    no_answer: str = ""
    bug: bool = False
    refused: bool = False
    """Whether it is an error in place of an answer, as an error reply is."""


def read_answer(backend: Backend, read: Callable[[], ModelAnswer]) -> Said:
    """Read a reply's answer. Whatever cannot be read is no answer, and the reply is passed on."""
    try:
        return Said(read())
    except Exception as exc:
        return no_answer(backend, exc)


def no_answer(backend: Backend, exc: Exception) -> Said:
    """Return what a reply says whose answer could not be read, by the exception that was raised."""
    if isinstance(exc, ReportedError):
        why, refused = str(exc), not exc.begun
        if isinstance(exc, ReportedFailure):
            return Said(NO_ANSWER, error=why, refused=refused)
        return Said(NO_ANSWER, no_answer=why, refused=refused)
    if isinstance(exc, InvalidAnswer):
        return Said(NO_ANSWER, no_answer=str(exc))
    # A mistake of ours in reading keeps nobody from the reply.
    log.error("the answer of backend %s could not be read", backend.name, exc_info=exc)
    return Said(NO_ANSWER, no_answer=f"unreadable: {type(exc).__name__}", bug=True)


def check_response(contract: Validator, headers: Headers, body: bytes) -> None:
    """Raise InvalidAnswer where a reply breaks its route's contract."""
    try:
        head, rest = split(headers, body)
        document = load_reply(head)
        if rest is not None:
            read(document, "outputs", rest)  # the raw tensors become `data`, where clauses look
    except ValueError as exc:
        raise InvalidAnswer(str(exc)) from exc
    breach = contract.breach(document)
    if breach is not None:
        raise InvalidAnswer(f"{breach.field} {breach.why}")


def price(
    backend: Backend, call: Call, reply: HttpReply, body: bytes, *, quote: Quote, latency_s: float
) -> tuple[int, str, Usage | None]:
    """Return (cost, its provenance, usage) of a call that ran."""
    if backend.price.is_fixed:
        return backend.price.call_nano, USAGE, CALL
    if (told := reported(backend, call, reply, body)) is not None:
        return told
    if backend.price.per_device_s_nano and not backend.price.output_token_nano:
        # Our own watch bounds the device's seconds from above.
        watched = Usage(device_s=latency_s, exact=False)
        return backend.price.cost_nano(watched), ESTIMATED, watched
    return quote.expected_nano, ESTIMATED, None


def reported(
    backend: Backend, call: Call, reply: HttpReply, body: bytes
) -> tuple[int, str, Usage] | None:
    """Return (cost, its provenance, usage) by what a reply reports; None: not all that costs."""
    try:
        told = backend.protocol.usage(call.payload or NO_PAYLOAD, reply, body)
        if told is not None and backend.price.is_told_by(told):
            return reckoned(backend.price, told)
    except ValueError:
        pass  # NaN, infinite or negative usage is no usage
    except Exception:  # a mistake of ours; the quote is charged instead
        log.exception("the usage of backend %s could not be read", backend.name)
    return None


def reckoned(price: Price, told: Usage) -> tuple[int, str, Usage]:
    """Return (cost, its provenance, usage) of a reported usage; ValueError where it is none."""
    cost_nano, more = price.cost_nano(told), told.more
    if more is None:
        return cost_nano, USAGE if told.exact else ESTIMATED, told
    if more.bill is not None:
        return cost_nano, REPORTED, told
    if guessed := price.guesses(told):
        told = replace(told, more=replace(more, guessed=guessed))
    sure = told.exact and not (guessed or more.is_doubtful)
    return cost_nano, USAGE if sure else ESTIMATED, told


UNDER_WAY = AttemptOutcome(0, PENDING, None, NO_ANSWER, "")
"""Of a stream that has begun."""


@record
class Ending:
    """How a stream ended.

    `error`: why it broke off, if it did. `abandoned`: where its client left, what was done then
    (`close` or `drain`). `whole`: it was read to the end of its body. `latency_s`: how long the
    call took; `silence_s`: of these, until its first text.
    """

    latency_s: float
    silence_s: float
    error: str = ""
    abandoned: str = ""
    whole: bool = False


def evaluate_stream(
    backend: Backend,
    follower: StreamReader,
    headers: Headers,
    ending: Ending,
    *,
    quote: Quote,
    rate: TokenRate,
    hold_nano: int | None = None,
) -> AttemptOutcome:
    """Judge a stream that is over: at its end, broken off, or left by its client.

    By the usage that it told at its end. Without one, a stream that came whole is charged by what
    was seen of it or by its quote, whichever is more; any other by the hold of a hard budget
    (`hold_nano`), or where none binds it by what was seen.
    """
    error = ending.error or (str(follower.error) if follower.error else "")
    skip = error or ending.abandoned
    said = Said(NO_ANSWER) if skip else read_answer(backend, follower.answer)
    outcome = AttemptOutcome(
        0,
        USAGE,
        Usage(),
        said.answer,
        error or said.error,
        no_answer=said.no_answer,
        bug=said.bug,
        abandoned=ending.abandoned,
        charged_by=BY_USAGE if skip else "",
    )
    if backend.price.is_fixed:
        cost_nano = backend.price.cost_nano(Usage())
        return replace(outcome, cost_nano=cost_nano, partial=not ending.whole)
    told = None
    try:
        told = follower.told(headers)
        if told is not None and told.exact and backend.price.is_told_by(told):
            cost_nano, provenance, usage = reckoned(backend.price, told)
            return replace(
                outcome,
                cost_nano=cost_nano,
                provenance=provenance,
                usage=usage,
                partial=not ending.whole,
            )
    except ValueError:
        told = None  # NaN, infinite or negative usage is no usage
    tokens = rate.tokens(follower.spoken_bytes, ending.silence_s)
    seen = used_at_least(quote, told, tokens, ending.latency_s)
    charge = estimated(backend.price, seen)
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
