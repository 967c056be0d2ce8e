"""Builds what all routes share: the journal, the money, who watches, and who is told."""

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from gateway import settings as config
from gateway.anomaly import Anomalies
from gateway.buffers import Buffers
from gateway.crew import Crew
from gateway.events import Events
from gateway.history import History
from gateway.journal import Journal
from gateway.ledger.registry import open_ledger
from gateway.ledger.types import Budget, Ledger
from gateway.ledger.wallet import Wallet
from gateway.logs import Put, RequestLog
from gateway.lookout import Lookout
from gateway.passage import random_ids
from gateway.seat import Seat
from gateway.watch import Follower, Watch
from gateway.webhooks import Target, Webhooks
from gateway.wiring.whole import Watching


def build_journal(settings: config.Settings) -> Journal:
    """Return a journal with a new segment in its folder."""
    return Journal(
        settings.journal.dir,
        segment_bytes_max=settings.journal.segment_mb << 20,
        waiting_bytes_max=settings.journal.waiting_mb << 20,
    )


def build_buffers(settings: config.Settings) -> Buffers:
    """Return what streams may buffer of unfinished events in this worker."""
    return Buffers(
        event_bytes_max=settings.server.max_event_bytes,
        bytes_max=settings.server.stream_buffer_bytes,
    )


def build_ledger(settings: config.Settings) -> Ledger:
    """Return the ledger at its address, not yet open."""
    password = settings.ledger.password
    return open_ledger(
        settings.ledger.url, password=password.get_secret_value() if password else None
    )


def build_wallet(  # noqa: PLR0917 - the parts in the order they are built
    settings: config.Settings,
    ledger: Ledger,
    budgets: Sequence[Budget],
    clock: Callable[[], float],
    events: Events,
    till_dir: Path | None,
) -> Wallet:
    """Return the wallet over a ledger; without tills, a crash leaves charged what was open."""
    return Wallet(
        ledger,
        budgets,
        holder=f"{socket.gethostname()}-{os.getpid()}",
        clock=clock,
        till_dir=till_dir,
        on_event=lambda event: events.add(
            event.kind,
            event.budget,
            event.detail,
            share=event.share,
            amount_nano=event.amount_nano,
            window_start=event.window_start_s,
        ),
        when_down=settings.ledger.when_down,
        hold_wait_s=settings.server.hold_wait_s,
    )


def build_lookout(  # noqa: PLR0917 - as above
    settings: config.Settings,
    seat: Seat,
    crew: Crew,
    wallet: Wallet,
    events: Events,
    wall: Callable[[], float],
) -> Lookout:
    """Return who looks for anomalies in what all workers spend; only the one that learns does."""
    watched = settings.anomalies
    return Lookout(
        Anomalies(ratio=watched.ratio, min_usd_per_h=watched.min_usd_per_hour),
        History(),
        looks=watched.enabled and seat.learns,
        crew=crew,
        wallet=wallet,
        events=events,
        file=settings.state.dir / "history.snapshot",
        wall=wall,
    )


def build_watching(
    settings: config.Settings,
    clock: Callable[[], float],
    wall: Callable[[], float],
    trace: Callable[[str], Any] | None,
    put: Put,
) -> Watching:
    """Return who watches requests; `put` takes the lines of the log."""
    endpoint, requests = settings.tracing.endpoint, settings.log.requests
    watching = Watching()
    followers: list[Follower] = []
    rng = Random(secrets.randbits(64))  # not the router's: its draws stay as they are
    if endpoint is not None:
        from gateway import spans  # noqa: PLC0415 - an extra

        made = spans.Spans(
            (trace or spans.exporter)(endpoint), clock=clock, wall=wall, new_id=random_ids(rng)
        )
        followers.append(made)
        watching.know, watching.close = made.know, made.close
    if requests != "off":
        form, failed_only = settings.log.format, requests == "failed"
        followers.append(RequestLog(form, failed_only=failed_only, put=put, wall=wall))
    if followers:
        traces, share = endpoint is not None, settings.tracing.sample
        watching.watch = Watch(followers, traces=traces, share=share, rng=rng)
    return watching


def build_webhooks(settings: config.Settings, wall: Callable[[], float]) -> Webhooks:
    """Return what sends events out."""
    return Webhooks(
        [
            Target(
                name=hook.name,
                url=hook.url.get_secret_value(),
                format=hook.format,
                secret=hook.secret.get_secret_value().encode() if hook.secret else b"",
                kinds=frozenset(hook.events),
            )
            for hook in settings.webhooks
        ],
        source=f"tollway/{socket.gethostname()}",
        wall=wall,
    )
