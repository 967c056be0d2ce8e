"""Requests in flight: limits a worker's concurrent requests, and each tenant's share of them."""

from collections.abc import Callable

from tollway.backends.concurrency.shares import Shares
from tollway.gateway.routing.refusals import RequestRefused, overloaded


class InFlight:
    """The data-plane requests of one worker."""

    # The mutable state is the number of requests, and that of each tenant's.
    def __init__(self, most: int, shed: Callable[[], None]) -> None:
        """Allow `most` requests at once; call `shed` for each one refused."""
        self.most = most
        self._shed = shed
        self._by_tenant = Shares()
        self.count = 0
        """Requests in progress; counted by the application."""

    def refusal(self) -> RequestRefused:
        """Return the refusal of a request, and count it."""
        self._shed()
        return overloaded("this gateway")

    def admit(self, tenant: str) -> bool:
        """Count a request in progress, also for its tenant; False if there is no place for it."""
        free = self.most - self.count
        if free <= 0 or not self._by_tenant.take(tenant, free):
            return False
        self.count += 1
        return True

    def hold(self, tenant: str) -> None:
        """Count a request in progress, also for its tenant, whether or not there is a place."""
        self.count += 1
        self._by_tenant.take(tenant, self.most + self.count)

    def dismiss(self, tenant: str) -> None:
        """Count a request that was admitted as ended."""
        self.count -= 1
        self._by_tenant.leave(tenant)

    def enter(self, tenant: str) -> None:
        """Count a request in progress for its tenant; RequestRefused above its share."""
        if not self._by_tenant.take(tenant, self.most - self.count + 1):  # 1: its own place
            raise self.refusal()

    def leave(self, tenant: str) -> None:
        """Count a request that had entered as ended."""
        self._by_tenant.leave(tenant)
