"""The sources of all metrics: the counters, and what is read from its owners at scrape time."""

from importlib.metadata import version

from tollway.gateway.budgets.fair_queue import WAIT_S
from tollway.gateway.observability import (
    cache_collectors,
    collectors,
    device_collectors,
    feature_collectors,
    rollout_collectors,
    scaling_collectors,
)
from tollway.gateway.observability.counter_families import counter_families
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.wiring.gateway import Gateway


def add_sources(gateway: Gateway, lines: Background) -> None:
    """Register the sources of a gateway's metrics; `lines` writes its log."""
    reservations, monitor = gateway.reservations, gateway.monitor
    waited = Buckets(WAIT_S)
    reservations.held.line.on_wait = waited.observe
    add = gateway.exposition.add_source
    add(lambda: counter_families(gateway.metrics))
    add(lambda: collectors.budgets(reservations))
    add(lambda: collectors.held_money(reservations, waited))
    add(lambda: collectors.journal(gateway.journal))
    add(lambda: collectors.removed(gateway.retention))
    add(lambda: collectors.disks(gateway.disks))
    add(lambda: collectors.routes(gateway.routes))
    add(lambda: cache_collectors.caches(gateway.routes, gateway.caching))
    if gateway.identity.learns:  # the others do not know the labels
        add(lambda: collectors.signals(gateway.routes))
    add(lambda: collectors.backends(gateway.backends, gateway.clock()))
    add(lambda: scaling_collectors.scaling(gateway.scaler))
    add(lambda: rollout_collectors.rollouts(gateway.rollouts, gateway.shadows.counts))
    add(lambda: collectors.batches(gateway.backends))
    add(lambda: device_collectors.devices(gateway.costs, gateway.clock()))
    add(lambda: feature_collectors.features(gateway.features.lookups))
    add(lambda: collectors.log_lines(lines))
    add(lambda: collectors.saved(gateway.state.saved_s))
    add(lambda: collectors.to_come(gateway.pacing.to_come))
    add(lambda: collectors.drains(gateway.drains))
    if gateway.keeper is not None:
        keeper = gateway.keeper
        add(lambda: collectors.models(keeper))
    if gateway.captures is not None:
        captures = gateway.captures
        add(lambda: collectors.captured(captures))
    if monitor.detects:
        add(lambda: collectors.anomalies(monitor.anomalies, gateway.wall()))
    add(lambda: collectors.build_info(version("tollway")))
