"""Metering: what a call has cost, from what came back.

The price is that of the backend called, bound when it was called. Where usage cannot be read it is
the quote that is charged, marked `estimated`; a call that may have run is never free.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from backends.documents import load_reply
from backends.oip_body import read, split
from backends.pricing import Price
from backends.types import (
    Answer,
    Call,
    Details,
    Follower,
    Headers,
    InvalidAnswer,
    Reply,
    ReportedFailure,
    Usage,
    record,
)
from gateway.contract import Contract
from gateway.credential import refuses_key
from gateway.estimator import Quote
from gateway.route import NO_PAYLOAD, Backend

log = logging.getLogger("tollway.metering")

USAGE, ESTIMATED, VOID, PENDING = "usage", "estimated", "void", "pending"
"""Where a cost comes from: usage that the backend told or that is certain (a call), the quote, or
nowhere: the call certainly did not run. Of a stream under way it is not known yet."""

REPORTED = "reported"
"""Where a cost comes from that the backend itself said in dollars."""

NOT_RUN = frozenset({429, 503})
"""Statuses by which a server says that it did no work."""

OVERLOADED = "overloaded"
"""The error of a call that was not made, because the backend had enough to do."""

OUTRUN = "outrun"
"""The error of a call that was given up because another, of the same backend, had answered."""

LEFT = "client left"
"""The error of a call that was given up because its client had left."""

GIVEN_UP = frozenset({OUTRUN, LEFT})
"""Errors that are none of the backend's."""

NO_ANSWER = Answer()


@record
class Verdict:
    """What an attempt has cost, and what its reply says.

    `error` says why another backend is asked instead; empty where the reply may go to the client
    at once. `no_answer` says why a reply that goes to the client holds nothing that can be scored;
    empty where it does. `forbidden`: the reply breaks the route's `answers`, so it never reaches
    the client. `bug`: our own code failed to read it. `partial`: the client left before the end,
    so the usage says nothing of others.
    `refuses_key`: the reply is about the gateway's own credential, so it never goes to a client.
    """

    cost_nano: int
    provenance: str
    usage: Usage | None
    answer: Answer
    error: str
    partial: bool = False
    refuses_key: bool = False
    no_answer: str = ""
    forbidden: bool = False
    bug: bool = False

    @property
    def ran(self) -> bool:
        """Whether the backend did the work, or may have."""
        return self.provenance != VOID


def unread(quote: Quote, error: str, *, ran: bool) -> Verdict:
    """Judge a call that brought no whole reply: charged in full where it may have run."""
    if not ran:
        return Verdict(0, VOID, None, NO_ANSWER, error)
    return Verdict(quote.ceiling_nano, ESTIMATED, None, NO_ANSWER, error)


def judge(
    backend: Backend, call: Call, reply: Reply, body: bytes, *, quote: Quote, latency_s: float
) -> Verdict:
    """Judge a whole reply."""
    status = reply.status
    if backend.credential is not None and refuses_key(status, body):
        why = backend.credential.complaint(status)
        return Verdict(0, VOID, None, NO_ANSWER, why, partial=True, refuses_key=True)
    if 400 <= status < 500 or status in NOT_RUN:
        # The client's fault, or not begun: what a server refused it does not bill, but if it says.
        told = reported(backend, call, reply, body)
        cost_nano, provenance, usage = (0, VOID, None) if told is None else told
        failed = status in NOT_RUN or status in backend.protocol.estranged
        error = f"status {status}" if failed else ""
        return Verdict(cost_nano, provenance, usage, NO_ANSWER, error, partial=True)
    cost_nano, provenance, usage = price(
        backend, call, reply, body, quote=quote, latency_s=latency_s
    )
    if status >= 500:
        return Verdict(cost_nano, provenance, usage, NO_ANSWER, f"status {status}")
    if backend.expects is not None:
        try:
            keep(backend.expects, reply.headers, body)
        except InvalidAnswer as breach:
            error = f"invalid answer: {breach}"
            return Verdict(cost_nano, provenance, usage, NO_ANSWER, error, forbidden=True)
    said = read_answer(
        backend, lambda: backend.protocol.answer(call.payload or NO_PAYLOAD, reply, body)
    )
    if status != 200 or not call.body:  # no model was asked, so no answer is missing
        said = replace(said, no_answer="")
    return Verdict(
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
    """What a reply says; see `Verdict` for the parts."""

    answer: Answer
    error: str = ""
    no_answer: str = ""
    bug: bool = False


def read_answer(backend: Backend, read: Callable[[], Answer]) -> Said:
    """Read a reply's answer. Whatever cannot be read is no answer, and the reply is passed on."""
    try:
        return Said(read())
    except ReportedFailure as failure:
        return Said(NO_ANSWER, error=str(failure))
    except InvalidAnswer as invalid:
        return Said(NO_ANSWER, no_answer=str(invalid))
    except Exception as exc:  # a mistake of ours in reading keeps nobody from the reply
        log.exception("the answer of backend %s could not be read", backend.name)
        return Said(NO_ANSWER, no_answer=f"unreadable: {type(exc).__name__}", bug=True)


def keep(contract: Contract, headers: Headers, body: bytes) -> None:
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
    backend: Backend, call: Call, reply: Reply, body: bytes, *, quote: Quote, latency_s: float
) -> tuple[int, str, Usage | None]:
    """Return (cost, its provenance, usage) of a call that ran."""
    if backend.price.is_fixed:
        usage = Usage()
        return backend.price.cost_nano(usage), USAGE, usage
    if (told := reported(backend, call, reply, body)) is not None:
        return told
    if backend.price.per_device_s_nano and not backend.price.output_token_nano:
        # Our own watch bounds the device's seconds from above.
        watched = Usage(device_s=latency_s, exact=False)
        return backend.price.cost_nano(watched), ESTIMATED, watched
    return quote.expected_nano, ESTIMATED, None


def reported(
    backend: Backend, call: Call, reply: Reply, body: bytes
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


UNDER_WAY = Verdict(0, PENDING, None, NO_ANSWER, "")
"""Of a stream that has begun."""


def relayed(
    backend: Backend,
    follower: Follower,
    headers: Headers,
    *,
    quote: Quote,
    latency_s: float,
    error: str,
    left: bool,
) -> Verdict:
    """Judge a stream that is over: at its end, broken off, or left by its client.

    By the usage that it told at its end; without one, by what was seen of it. A stream that came
    whole and told nothing is charged by its quote, if that is more.
    """
    error = error or (str(follower.error) if follower.error else "")
    said = Said(NO_ANSWER) if error or left else read_answer(backend, follower.answer)
    error = error or said.error

    def verdict(cost_nano: int, provenance: str, usage: Usage, partial: bool) -> Verdict:
        return Verdict(
            cost_nano,
            provenance,
            usage,
            said.answer,
            error,
            partial,
            no_answer=said.no_answer,
            bug=said.bug,
        )

    if backend.price.is_fixed:
        usage = Usage()
        return verdict(backend.price.cost_nano(usage), USAGE, usage, left)
    told = None
    try:
        told = follower.told(headers)
        if told is not None and told.exact and backend.price.is_told_by(told):
            return verdict(*reckoned(backend.price, told), left)
    except ValueError:
        told = None  # NaN, infinite or negative usage is no usage
    # One at least: a stream that has begun has read its prompt and made a token of its answer.
    seen = max(1.0, told.output_tokens if told is not None else 0.0)
    more = quote.usage.more
    bound = replace(
        quote.usage,
        output_tokens=seen,
        device_s=latency_s,
        exact=False,
        more=Details(service_tier=more.service_tier) if more and more.service_tier else None,
    )
    try:
        cost_nano = backend.price.cost_nano(bound)
    except ValueError:  # tokens told beyond belief, and no seconds beside them
        bound = replace(bound, output_tokens=1.0)
        cost_nano = backend.price.foreseen_nano(bound)
    if not (error or left):
        cost_nano = max(cost_nano, quote.expected_nano)
    return verdict(cost_nano, ESTIMATED, bound, True)
