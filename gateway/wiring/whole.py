"""The gateway as a whole: its parts, and their opening and closing."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from gateway import settings as config
from gateway.app import App
from gateway.audits import Audits
from gateway.control import Control
from gateway.crew import Crew
from gateway.drains import Drains
from gateway.events import Events
from gateway.journal import Journal
from gateway.learner import CATCH_UP_SEGMENTS_MAX, Learner
from gateway.ledger.types import Ledger
from gateway.ledger.wallet import Wallet
from gateway.lines import Background
from gateway.lookout import Lookout
from gateway.metrics import Metrics
from gateway.rates import Rate
from gateway.replays import Replays
from gateway.route import Backend, Route
from gateway.router import Router
from gateway.seat import Seat
from gateway.upkeep import Upkeep
from gateway.watch import Watch
from gateway.webhooks import Webhooks


def _own_name() -> bytes:
    """Return a name for this gateway in Via, by which it knows its own requests coming back."""
    return f"tollway-{secrets.token_hex(4)}".encode()


async def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class Watching:
    """Who watches requests, if anybody: `know` tells them where routes and backends are."""

    watch: Watch | None = None
    know: Callable[[Mapping[str, str], Mapping[str, str]], None] = lambda paths, urls: None
    close: Callable[[], Awaitable[None]] = _nothing


@dataclass(slots=True)
class Gateway:
    """The parts of a gateway, and its opening and closing."""

    settings: config.Settings
    backends: dict[str, Backend]
    routes: dict[str, Route]
    wallet: Wallet
    journal: Journal
    metrics: Metrics
    events: Events
    learner: Learner
    router: Router
    audits: Audits
    upkeep: Upkeep
    crew: Crew
    seat: Seat
    lookout: Lookout
    webhooks: Webhooks
    ledger: Ledger
    clock: Callable[[], float]
    wall: Callable[[], float]
    watching: Watching
    app: App = field(init=False)
    control: Control = field(init=False)
    rates: dict[str, Rate] = field(default_factory=dict, init=False)
    replays: Replays | None = field(default=None, init=False)
    drains: Drains = field(default_factory=Drains, init=False)
    via: bytes = field(default_factory=_own_name)
    opened: Callable[[], None] = field(default=lambda: None, init=False)
    closed: Callable[[], Awaitable[None]] = field(default=_nothing, init=False)
    lines: Background | None = field(default=None, init=False)
    limit_bodies: Callable[[int], None] = field(default=lambda most: None, init=False)
    not_ready: str = field(default="starting", init=False)

    async def open(self) -> None:
        """Take up the money and what was learned before, and begin upkeep."""
        self.journal.write_in_turns()
        await self.wallet.open()
        times = self.upkeep.restore()
        self.lookout.restore()
        if self.seat.learns:
            self._catch_up(times)
        await self.crew.open()
        self.upkeep.start()
        self.webhooks.start()
        self.not_ready = ""
        self.opened()

    def _catch_up(self, times: Mapping[str, float]) -> None:
        most = CATCH_UP_SEGMENTS_MAX * self.seat.count  # each worker writes segments of its own
        done = self.learner.catch_up(self.settings.journal.dir, times, most)
        if done.learned:
            self.events.add("caught_up", "journal", f"learned again from {done.learned} feedbacks")
        if done.skipped:
            text = f"{done.skipped} rows cannot be learned from and were skipped; see the log"
            self.events.add("journal_rows_skipped", "journal", text, rows=done.skipped)

    def leave(self) -> None:
        """Say that new requests are not welcome; they are still served."""
        self.not_ready = "stopping"
        self.app.leave()

    async def close(self) -> None:
        """Hand the money back, save what was learned, and let go of everything."""
        self.not_ready = "stopping"
        await self.audits.close()
        await self.upkeep.stop()
        self.lookout.save()
        await self.crew.close()
        await self.wallet.close()
        await self.webhooks.stop()
        await self.closed()
        await self.watching.close()
        for backend in self.backends.values():
            await backend.aclose()
        self.journal.close()
        if self.lines is not None:
            await asyncio.to_thread(self.lines.close)
