"""What can be wrong with a call: errors of transports, of protocols and of replies."""

import asyncio


class BackendError(Exception):
    """A call without a usable reply.

    `ran` says whether the backend may have done the work (and so may bill it): it is False only if
    the request was certainly never sent whole.
    """

    def __init__(self, message: str, *, ran: bool) -> None:
        super().__init__(message)
        self.ran = ran


class ConnectFailed(BackendError):  # noqa: N818 - reads as what happened
    """No connection could be established; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ran=False)


class Overloaded(ConnectFailed):
    """The backend has as many calls as it can answer in time; nothing was sent."""


class SharedFailure(BackendError):  # noqa: N818
    """The failure of a call that stood for several; another one of them counts as evidence."""


class DeadlineExceeded(BackendError):  # noqa: N818
    """The attempt's deadline passed; the backend may still be working on it."""


class BadReply(BackendError):  # noqa: N818
    """The backend broke the protocol: a cut, malformed or ambiguous reply."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ran=True)


class FailedAtOnce(BadReply):
    """A stream with a first event that reports an error: no token was generated.

    `status` and `body` are those of the equivalent unary reply.
    """

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class BadRequest(ValueError):  # noqa: N818
    """The client's request is not valid in the route's protocol; the message says why."""


class UnknownCoding(BadRequest):
    """The request's body is in a content coding that cannot be decoded here."""


_NOT_SENT = "nothing was sent"


def mark_unsent(cancelled: asyncio.CancelledError) -> None:
    """Mark a cancellation: the call it ends had not been sent.

    Not a class of its own: `asyncio.timeout` (3.11) knows only the builtin one.
    """
    cancelled.args = (_NOT_SENT,)


def is_unsent(cancelled: BaseException | None) -> bool:
    """Whether a call was ended by a cancellation before anything was sent."""
    return isinstance(cancelled, asyncio.CancelledError) and cancelled.args == (_NOT_SENT,)


class InvalidAnswer(ValueError):  # noqa: N818
    """A reply without an answer: empty, NaN, or nothing where the answer should be.

    It says nothing about the backend's health, and the reply still goes to the client.
    """


class ReportedError(InvalidAnswer):
    """A well-formed reply with status 200 that holds an error instead of an answer.

    `begun`: part of an answer came before it, so tokens were generated.
    """

    def __init__(self, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun


class ReportedFailure(ReportedError):  # noqa: N818 - reads as what happened
    """A reported error that says the call failed upstream.

    Another backend may be tried; if none answers, the reply goes to the client unchanged.
    """
