"""The periodic jobs of a gateway: what runs off the request path, and how often."""

import asyncio
from collections.abc import Sequence
from functools import partial

from tollway.gateway.anomalies import detector
from tollway.gateway.data_plane.server_models import REFRESH_S
from tollway.gateway.learning.device_costs import TICK_S
from tollway.gateway.learning.multipliers import RESOLVE_S, resolve
from tollway.gateway.learning.pacing import PACE_S
from tollway.gateway.learning.price_hours import REPRICE_S, reprice
from tollway.gateway.observability.aggregation import Family
from tollway.gateway.rollouts import service as rollouts
from tollway.gateway.scaling import backend_totals, scaler
from tollway.gateway.storage.disk_space import LOOK_S
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.retention import RETAIN_S
from tollway.gateway.wiring.backends import check_health
from tollway.gateway.wiring.features import value_limits
from tollway.gateway.wiring.gateway import Gateway
from tollway.gateway.wiring.routes import look_at_inputs
from tollway.gateway.wiring.scaling import paid_replicas, tell_backends
from tollway.gateway.wiring.scheduler import Job, every
from tollway.gateway.workers.policy_sync import PolicySync

HEALTH_S = 5.0  # between two health checks of an address
BACKGROUND_S = 5.0  # between two looks for the ends of background calls
TOKENS_S = 30.0  # between two looks for access tokens that end soon
CAPTURES_S = 1.0  # between two writes of captured requests
WARM_S = 240.0  # between two looks for an hour that begins within ten minutes
VALUES_S = 3600.0  # between two looks for values of features that are kept too long
DRIFT_S = 30.0  # between two checks for input drift
HISTORY_S = 300.0  # between two saves of the history and the spend baselines
WORKERS_S = 1.0  # between two exchanges of state among workers


def build_jobs(gateway: Gateway) -> list[Job]:
    """Return the jobs of one worker."""
    settings, routes, events = gateway.settings, gateway.routes, gateway.events
    jobs = [
        every(RESOLVE_S, lambda: resolve(routes, events)),
        every(PACE_S, gateway.pacing.pace),
        Job(TICK_S, gateway.costs.run),
        every(REPRICE_S, lambda: reprice(routes, gateway.wall())),
        Job(settings.journal.fsync_s, lambda: sync(gateway.journal)),
        Job(HEALTH_S, lambda: check_health(gateway.backends)),
        Job(TOKENS_S, lambda: renew_tokens(gateway)),
        Job(BACKGROUND_S, gateway.background.look),
        Job(REFRESH_S, gateway.listed.refresh),
        Job(DRIFT_S, lambda: look_at_inputs(routes, events)),
        Job(detector.TICK_S, lambda: look(gateway)),
        Job(rollouts.TICK_S, gateway.rollouts.tick),
        Job(scaler.TICK_S, gateway.scaler.tick),
        Job(WARM_S, lambda: warm_features(gateway)),
        *worker_jobs(gateway),
    ]
    if gateway.captures is not None:
        jobs.append(Job(CAPTURES_S, gateway.captures.write))
    if gateway.identity.learns:
        if settings.registry is not None and gateway.keeper is not None:
            jobs.append(Job(settings.registry.poll_s, gateway.keeper.look))
        jobs.append(Job(settings.state.interval_s, gateway.state.save))
        jobs.append(Job(HISTORY_S, gateway.history_file.save))
        jobs.append(Job(HISTORY_S, gateway.devices_file.save))
        jobs.append(Job(HISTORY_S, gateway.scaling_file.save))
        jobs.append(Job(HISTORY_S, gateway.features_file.save))
        if gateway.retention.is_limited:
            jobs.append(Job(RETAIN_S, gateway.retention.run))
        jobs.append(Job(LOOK_S, gateway.disks.look))
        jobs.append(
            Job(VALUES_S, lambda: gateway.feature_values.run(value_limits(gateway.settings)))
        )
    return jobs


def worker_jobs(gateway: Gateway) -> list[Job]:
    """Return the jobs that synchronize several workers."""
    identity = gateway.identity
    if identity.folder is None:
        return []
    sync = PolicySync(identity.folder, gateway.routes, gateway.events, identity.index)
    exchange = sync.publish if identity.learns else sync.load_updates
    return [Job(WORKERS_S, gateway.group.leave_in_turn), every(WORKERS_S, exchange)]


async def warm_features(gateway: Gateway) -> None:
    """Load the entities that the hour ahead asks for, if it begins soon."""
    await gateway.features.warm_ahead(gateway.wall())


async def renew_tokens(gateway: Gateway) -> None:
    """Fetch the access tokens that replace those that end soon."""
    for backend in list(gateway.backends.values()):
        for credential in backend.credentials:
            await credential.refresh(gateway.wall())


async def look(gateway: Gateway) -> None:
    """Record the counters of all workers for the dashboard, and check the spend and the load."""
    now_s = gateway.wall()
    report = await gateway.group.all()
    gateway.history.sample(report.families, now_s)
    await look_at_load(gateway, report.families)
    gateway.monitor.look(report.activity, now_s)


async def look_at_load(gateway: Gateway, families: Sequence[Family] | None = None) -> None:
    """Recommend replicas by the counters of all workers, and tell the backends what they cost."""
    now_s = gateway.wall()
    if gateway.scaling.backends:
        if families is None:
            families = (await gateway.group.all()).families
        # In a thread: thousands of tenants have a hundred thousand samples.
        own = [one.name for one in gateway.settings.scaling if one.kind == "gateway"]
        counted = await asyncio.to_thread(backend_totals.totals, families, own)
        plans = {name: one.plan for name, one in gateway.scaling.backends.items()}
        paid = paid_replicas(plans, gateway.reservations.status(), now_s)
        gateway.scaler.observe(counted, now_s, paid)
        tell_backends(gateway.scaler, gateway.backends, now_s)
        for backend in gateway.backends.values():
            if backend.start is not None:
                backend.start.on_wait = partial(wake, gateway)


def wake(gateway: Gateway) -> None:
    """Have the first replica started at once, not at the next tick: a call has begun to wait."""

    async def woken() -> None:
        try:
            await look_at_load(gateway)
            await gateway.scaler.tick()
        finally:
            gateway.waking = None

    if gateway.waking is None:
        gateway.waking = asyncio.create_task(woken())


async def sync(journal: Journal) -> None:
    """Write the journal's waiting rows to disk."""
    journal.flush()
    await asyncio.to_thread(journal.sync)
