"""Evidence: what an attempt says about the health of its backend.

BROKEN    no connection, our own timeout, 502, 503, 504: counts at once
SUSPECT   another 5xx, a reply that broke off: the request may have caused it, so a trial by
          another caller decides (see `circuit_breaker`)
UNKNOWN   no evidence: a deadline that the client chose, a client that disconnected, back-pressure
          (429, 529), no memory of ours for its reply, a path or method that the client got wrong, a
          reply that violates the route's `response_schema`, a failure that another call reports
WELL      it replied
"""

from tollway.backends.errors import BackendError, ConnectFailed, DeadlineExceeded, SharedFailure
from tollway.gateway.routing.bodies.buffers import BufferFull

UNKNOWN, WELL, SUSPECT, BROKEN = "", "well", "suspect", "broken"

FAILED = 500
GATEWAY_ERRORS = frozenset({502, 503, 504})
OVERLOADED = 529  # Anthropic's status for back-pressure, like a 429

FAIR_SHARE = 0.25
"""The least share of the configured timeout that makes a timeout count against a backend. One that
was given less, because others had used up the time, is not blamed for being late. A fallback chain
leaves half of the time to a fallback."""


def of_status(status: int, error: str, *, local: bool) -> str:
    """Return the evidence of a complete reply; rules decline a request with 503."""
    if not error:
        return WELL
    if status in GATEWAY_ERRORS:
        return UNKNOWN if local else BROKEN
    return SUSPECT if status >= 500 and status != OVERLOADED else UNKNOWN


def of_event(status: int, error: str) -> str:
    """Return the evidence of an error in a stream's first event, by the status it stands for.

    The server itself answered, so a 502 in the event comes from a provider behind it.
    """
    return of_status(FAILED if status in GATEWAY_ERRORS else status, error, local=False)


def of_failure(failure: BackendError, *, fair: bool) -> str:
    """Return the evidence of a call without a complete reply.

    `fair`: the deadline was ours, and long enough.
    """
    if isinstance(failure, BufferFull | SharedFailure):
        return UNKNOWN
    if isinstance(failure, DeadlineExceeded):
        return BROKEN if fair else UNKNOWN
    return BROKEN if isinstance(failure, ConnectFailed) else SUSPECT


CUT_BY_US = ("the request's time is up", "the stream was not read to its end")
"""Stream ends that are no evidence about a backend: a long answer, or a client that stopped."""


def of_stream(error: str) -> str:
    """Return the evidence of a stream's end; an error in it may be the request's fault."""
    if not error:
        return WELL
    return UNKNOWN if error in CUT_BY_US else SUSPECT
