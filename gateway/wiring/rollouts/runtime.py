"""Builds the rollouts of a gateway, binds them to its routes, and makes smoke requests."""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from random import Random

from tollway.backends.errors import BackendError, BadRequest
from tollway.backends.types import Call
from tollway.gateway import settings as config
from tollway.gateway.control_store.registry import open_control_store
from tollway.gateway.learning.feedback import FeedbackLearner
from tollway.gateway.learning.warm_up import WarmUps
from tollway.gateway.observability.events import EventLog
from tollway.gateway.rollouts.binding import Binding, BoundRoute
from tollway.gateway.rollouts.keys import StickyKey
from tollway.gateway.rollouts.model import RolloutPlan
from tollway.gateway.rollouts.observer import RolloutObserver
from tollway.gateway.rollouts.service import Rollouts
from tollway.gateway.rollouts.shadow import ShadowRunner
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.storage.journal import Journal
from tollway.gateway.wiring.request_path import RequestPath
from tollway.gateway.wiring.rollouts.plans import build_plans
from tollway.policies.split import Split

SMOKE_S = 30.0  # of one smoke request
SMOKE_BYTES_MAX = 16 << 20


def build_rollouts(
    settings: config.Settings,
    routes: Mapping[str, RoutePlan],
    path: RequestPath,
    learner: FeedbackLearner,
    journal: Journal,
    *,
    events: EventLog,
    audit: AuditLog,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
    own_ledger: bool,
    warm_ups: WarmUps,
    path_of: Callable[[str], str],
) -> tuple[Rollouts, ShadowRunner]:
    """Return the rollouts of a gateway, which observe its requests and labels, and their shadows.

    Their states are beside the ledger, if the gateway has opened that itself.
    """
    password = settings.ledger.password
    store = open_control_store(
        settings.ledger.url if own_ledger else "memory://",
        password=password.get_secret_value() if password else None,
        clock=wall,
    )

    async def ask(plan: RolloutPlan, path: str, body: str) -> str:
        """Make a request that costs money, as a warm-up: reserved, charged and journalled."""
        route = routes[plan.routes[0]]
        where = path or path_of(route.name)
        try:
            document = json.loads(body)
            found = await warm_ups.ask(route, where, document, ANONYMOUS, [plan.candidate])
        except (BadRequest, ValueError) as exc:
            return str(exc)
        (reply,) = found["replies"]
        return "" if 0 < reply.get("status", 0) < 400 else str(reply["error"])

    rollouts = Rollouts(
        store, events=events, audit=audit, wall=wall, member=member(), smoke=partial(smoke, ask=ask)
    )
    revise(rollouts, settings, routes)
    observer = RolloutObserver(rollouts, rng)
    shadows = ShadowRunner(
        rollouts, path.reserving, path.attempts, journal, clock=clock, wall=wall, rng=rng
    )
    observer.shadow = shadows.labelled
    path.sinks.add(ended=observer.ended)
    path.sinks.add(ended=shadows.ended)
    path.sinks.add(ended=rollouts.drift.ended)
    learner.on_label = observer.labelled
    return rollouts, shadows


def revise(rollouts: Rollouts, settings: config.Settings, routes: Mapping[str, RoutePlan]) -> None:
    """Give rollouts another configuration, and put their states into effect on its routes."""
    plans = build_plans(settings)
    rollouts.drift.keep({name: route.backends for name, route in routes.items()})
    rollouts.revise(plans, bind(plans, routes))


def bind(plans: Iterable[RolloutPlan], routes: Mapping[str, RoutePlan]) -> dict[str, BoundRoute]:
    """Return the routes that have rollouts."""
    bound = {}
    for name, route in routes.items():
        splits = {}
        policy = route.policy
        while isinstance(policy, Split):
            splits[policy.candidate] = policy
            policy = policy.inner
        bindings = [
            Binding(
                plan,
                splits[plan.candidate],
                None if plan.sticky == "request" else StickyKey(plan.sticky),
            )
            for plan in plans
            if plan.candidate in splits and name in plan.routes
        ]
        if bindings:
            bound[name] = BoundRoute(route, bindings)
    return bound


def member() -> str:
    """Return a name of this process, different from that of every other one."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


async def smoke(
    plan: RolloutPlan, target: Target, *, ask: Callable[[RolloutPlan, str, str], Awaitable[str]]
) -> str:
    """Make a plan's smoke requests, or one to the health path; return why one failed, or ""."""
    if not plan.smoke:
        healthy = None if target.trial is None else await target.trial.ask()
        return "its health path does not answer" if healthy is False else ""
    for path, body in plan.smoke:
        if body:
            try:
                async with asyncio.timeout(SMOKE_S):
                    why = await ask(plan, path, body)
            except TimeoutError:
                why = f"no reply within {SMOKE_S:g} s"
            if why:
                return f"{path or '/'}: {why}"
            continue
        where = path.encode() or target.path
        headers = [(b"host", target.host), *target.headers]
        if target.credential is not None:
            headers.append(target.credential.field)
        call = Call(b"GET", where, headers)
        try:
            async with asyncio.timeout(SMOKE_S):
                until_s = asyncio.get_running_loop().time() + SMOKE_S
                reply = await target.transport.send(call, until_s)
                await reply.read(SMOKE_BYTES_MAX)
        except (BackendError, TimeoutError) as exc:
            return f"{path or '/'}: {str(exc) or type(exc).__name__}"
        if reply.status >= 400:
            return f"{path or '/'}: status {reply.status}"
    return ""
