"""The client of a connection: cancels the serving task when the client disconnects.

The listener creates one `Client` per connection and passes it in the ASGI scope of each request. A
connection serves one request at a time, so at most one task is cancelled. No task and no callback
watches for disconnects, because the listener knows when its connection is lost (0.3 us a request).
"""

from typing import Any, Protocol

from tollway.backends.types import Headers
from tollway.gateway.listener.known_heads import KnownHead

EXTENSION = "tollway.client"
"""The key of the client in the scope's `extensions`."""


class Cancellable(Protocol):
    """What serves a request: a task, or what becomes one."""

    def cancel(self, msg: object = None) -> object:
        """Stop serving."""


class Replying(Protocol):
    """A request that can be answered at once.

    `known`: its head was accepted before, and may have been judged. `waited`: more requests had
    come than could begin at once.
    """

    known: KnownHead | None
    waited: bool

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole response; False if the client must first read others."""


class WholeRequest(Replying, Protocol):
    """A request that has come whole, and that no coroutine serves yet.

    `scope`: its ASGI scope; if its head is known, that of the first request that had it. `tasks`:
    what serves requests, so that it can be cancelled when the server stops.
    """

    scope: dict[str, Any]

    @property
    def head(self) -> dict[str, Any]:
        """Its own ASGI scope."""

    @property
    def body(self) -> bytes:
        """All of its body."""

    @property
    def tasks(self) -> set[Any]:
        """What serves requests."""

    def reply_as_is(self, data: bytes) -> bool:
        """Send a whole response, which states its length; False if `reply` must send it."""

    def hand_over(self, app: Any) -> None:
        """Have a coroutine answer it: `app`, called as an ASGI application is."""


class _Nothing:
    """No request."""

    known: KnownHead | None = None
    waited = False

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        return False


NOTHING = _Nothing()


class Client:
    """The client of a connection."""

    # The mutable state is whether it has disconnected, the request that it waits for and what
    # serves that, and whether this is to be cancelled when it disconnects.
    __slots__ = ("cancels", "left", "running", "serving")

    def __init__(self) -> None:
        self.left = False
        self.cancels = False
        self.serving: Replying = NOTHING
        self.running: Cancellable | None = None

    def leave(self) -> None:
        """Record that the connection is lost, and cancel what serves it."""
        self.left = True
        if self.cancels and self.running is not None:
            self.running.cancel()

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole response to the request being served; see `Replying`."""
        return self.serving.reply(status, headers, body)


def client_of(scope: dict[str, Any]) -> Client | None:
    """Return the client of a request; None if the server does not report disconnects."""
    return scope["extensions"].get(EXTENSION) if "extensions" in scope else None
