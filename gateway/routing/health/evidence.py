"""What an attempt says about the health of its backend.

BROKEN    no connection, our own timeout, 502, 503, 504: counts at once
SUSPECT   another 5xx, a reply that broke off: the request may have caused it, so a trial by
          another caller decides (see `breaker`)
UNKNOWN   nothing: a deadline that the client chose, a client that left, back-pressure (429),
          (529 too), a path or method that the client got wrong, a reply that breaks the route's
          `answers`
WELL      it replied
"""

from tollway.backends.types import BackendError, ConnectFailed, DeadlineExceeded

UNKNOWN, WELL, SUSPECT, BROKEN = "", "well", "suspect", "broken"

FAILED = 500
GATEWAY_ERRORS = frozenset({502, 503, 504})
OVERLOADED = 529  # Anthropic's: back-pressure, as a 429

FAIR_SHARE = 0.25
"""Of the time an attempt may take by its settings: a backend that was given less, because others
had used the time up, is not blamed for being late. A ladder leaves half of the time to a rung."""


def of_status(status: int, error: str, *, local: bool) -> str:
    """Return what a whole reply says; rules decline a request with 503."""
    if not error:
        return WELL
    if status in GATEWAY_ERRORS:
        return UNKNOWN if local else BROKEN
    return SUSPECT if status >= 500 and status != OVERLOADED else UNKNOWN


def of_event(status: int, error: str) -> str:
    """Return what an error as the first event of a stream says, by the status that it stands for.

    The server itself answered, so a 502 in it is that of a provider behind it.
    """
    return of_status(FAILED if status in GATEWAY_ERRORS else status, error, local=False)


def of_failure(failure: BackendError, *, fair: bool) -> str:
    """Return what a call without a whole reply says; `fair`: its deadline was ours, and enough."""
    if isinstance(failure, DeadlineExceeded):
        return BROKEN if fair else UNKNOWN
    return BROKEN if isinstance(failure, ConnectFailed) else SUSPECT


CUT_BY_US = ("the request's time is up", "the stream was not read to its end")
"""Ends of streams that say nothing of a backend: a long answer, or a client that takes none."""


def of_stream(error: str) -> str:
    """Return what the end of a stream says; an error in it may be the request's fault."""
    if not error:
        return WELL
    return UNKNOWN if error in CUT_BY_US else SUSPECT
