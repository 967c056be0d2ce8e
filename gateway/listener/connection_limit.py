"""The connection limit: how many connections a process accepts, and how many from one address.

An address has its share of the places that are free (`Shares`). A connection that was refused is
not counted, although it stays open for a moment so that its client can read why; else a flood of
refused connections would keep everybody out.
"""

from tollway.backends.concurrency.shares import Shares


class ConnectionLimit:
    """The open connections of one process."""

    # The mutable state is the number of connections, and that of each address.
    def __init__(self) -> None:
        self.count = 0
        self._by_address = Shares()

    def admit(self, address: str, most: int) -> bool:
        """Count a connection if that many are allowed; `address` is empty for a Unix socket."""
        free = most - self.count
        if free <= 0 or (address and not self._by_address.take(address, free)):
            return False
        self.count += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection that was admitted as closed."""
        self.count -= 1
        if address:
            self._by_address.leave(address)
