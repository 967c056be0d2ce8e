"""Whether a request's client is still there, and which task stops when it leaves.

The listener makes one `Client` a connection and hands it over in the request's ASGI scope. A
request is served one at a time on a connection, so one task at most is stopped. No task and no
callback watches for a client that leaves: the listener knows when its connection is lost (0.3 us a
request).
"""

import asyncio
from typing import Any

EXTENSION = "tollway.client"
"""Where in the scope's `extensions` the client of a request is found."""


class Client:
    """The client at the other end of a connection."""

    # The mutable state is whether it has left, and the task that is cancelled when it does.
    __slots__ = ("_task", "left")

    def __init__(self) -> None:
        self.left = False
        self._task: asyncio.Task[Any] | None = None

    def leave(self) -> None:
        """Note that the connection is lost; cancel the task that works for it."""
        self.left = True
        if self._task is not None:
            self._task.cancel()

    def awaits(self, task: asyncio.Task[Any] | None) -> None:
        """Have `task` cancelled if the client leaves; None: nothing, from now on."""
        self._task = task


def client_of(scope: dict[str, Any]) -> Client | None:
    """Return the client of a request; None where the server does not say when one leaves."""
    extensions = scope.get("extensions")
    client = None if extensions is None else extensions.get(EXTENSION)
    assert client is None or isinstance(client, Client), client
    return client
