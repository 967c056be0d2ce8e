"""A reload keeps state: what the gateway has learned, counted or used up."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from tollway.backends.http.load_balancer import LoadBalancer
from tollway.backends.http.pool import Http1Transport
from tollway.backends.types import Addition, Call, Usage
from tollway.gateway import settings as config
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.estimation.prompt_cache import prompt
from tollway.gateway.learning.feedback_items import FEEDBACK_MAX
from tollway.gateway.routing.hedging import KNOWN_AT
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.security.keys import hash_key
from tollway.gateway.storage.audit_log import Actor
from tollway.gateway.wiring import Gateway, build
from tollway.gateway.wiring import reload as reloading
from tollway.gateway.wiring.reload import Reloader
from tollway.policies.types import Context

BASE = f"""
[server]
allow_anonymous = false
[ledger]
url = "memory://"

[[tenants]]
name = "t"
key_hash = "{hash_key("tw_one")}"
rate = {{ requests_per_s = 0.001, burst = 5, usd_per_s = 0.001, feedback_per_s = 0.001 }}

[[backends]]
name = "chat"
kind = "gpu"
protocol = "openai"
url = "http://127.0.0.1:9"
replicas = ["http://127.0.0.1:10"]
timeout_s = 30
model = "small"
auth = {{ bearer_env = "TEST_PROVIDER_KEY" }}
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0, \
cached_input_usd_per_mtok = 0.1 }}

[[backends]]
name = "other"
kind = "gpu"
protocol = "openai"
url = "http://127.0.0.1:11"
model = "large"
price = {{ per_request_usd = 0.001 }}

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["chat", "other"]
fallbacks = ["other"]
hedge_share = 0.05
timeout_s = 60
context = {{ numeric = ["temperature"] }}
audit = {{ backend = "other", share = 0.1 }}
score = {{ exact = "choices[0].message.content" }}

[[budgets]]
name = "all"
limit_usd = 10.0
"""

ADDED = """
[[backends]]
name = "third"
kind = "gpu"
protocol = "openai"
url = "http://127.0.0.1:12"
price = { per_request_usd = 0.01 }
"""


def swapped(*pairs: tuple[str, str]) -> str:
    text = BASE
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    return text


CHANGES = {
    "the same file": BASE,
    "a price": swapped(("output_usd_per_mtok = 2.0", "output_usd_per_mtok = 9.0")),
    "time limits": swapped(
        ("timeout_s = 30", "timeout_s = 20\nconnect_timeout_s = 1\nevent_idle_timeout_s = 30"),
        ("timeout_s = 60", "timeout_s = 50"),
    ),
    "a backend added": swapped(('"chat", "other"]', '"chat", "other", "third"]')) + ADDED,
    "shares and rates": swapped(
        ("hedge_share = 0.05", "hedge_share = 0.04\nretry_share = 0.1"),
        ("share = 0.1", "share = 0.2"),
        ("burst = 5", "burst = 6"),
    ),
    "limits of calls": swapped(
        ("timeout_s = 30", "queue_s = 2\nconcurrency = 50\nlatency_tolerance = 4\ndrop_fields = []")
    ),
    "other routes of its server": swapped(
        ("timeout_s = 30", "prompt_cache_s = 200\ndeclared_accuracy = 0.5\nkeep_alive = true")
    ),
}
"""What a reload may change without concerning the state that is looked at here."""


@dataclass(frozen=True)
class State:
    """One piece of state: how to create it, and where it shows."""

    change: Callable[[Gateway], None]
    read: Callable[[Gateway], Any]


def chat(gateway: Gateway) -> Target:
    """The backend as requests see it."""
    return gateway.routes["r"].backends["chat"]


def fail(gateway: Gateway) -> None:
    for _ in range(5):
        chat(gateway).breaker.failed(gateway.clock())


def refuse_key(gateway: Gateway) -> None:
    credential = chat(gateway).credential
    assert credential is not None
    credential.refused(401, gateway.clock(), gateway.clock())
    credential.accepted(gateway.clock() + 1)


def credential_of(gateway: Gateway) -> Any:
    return id(chat(gateway).credential)


def narrow(gateway: Gateway) -> None:
    slots = chat(gateway).slots
    assert slots is not None
    assert slots._limiter is not None
    for state in range(10):
        slots._limiter.refused(gateway.clock() + 2 * state)


def shed(gateway: Gateway) -> None:
    slots = chat(gateway).slots
    assert slots is not None
    slots.refused, slots.busy = 7, 3
    slots.leave(2.0)


def queue_of(gateway: Gateway) -> Any:
    slots = chat(gateway).slots
    assert slots is not None
    return slots.refused, slots.busy, slots._held_s


def limit_of(gateway: Gateway) -> Any:
    slots = chat(gateway).slots
    assert slots is not None
    assert slots._limiter is not None
    return slots._limiter.limit


def endpoints(gateway: Gateway) -> Any:
    transport = chat(gateway).transport
    assert isinstance(transport, LoadBalancer)
    return transport.endpoints


def eject(gateway: Gateway) -> None:
    transport = chat(gateway).transport
    assert isinstance(transport, LoadBalancer)
    for _ in range(5):
        transport.failed(transport.endpoints[1])
    transport.endpoints[0].healthy = False


def ejected(gateway: Gateway) -> Any:
    return [(e.ejections, e.ejected_until_s, e.healthy) for e in endpoints(gateway)]


def close_early(gateway: Gateway) -> None:
    for end in endpoints(gateway):
        assert isinstance(end.transport, Http1Transport)
        end.transport.reuse.closed(False, gateway.clock())


def reuse_of(gateway: Gateway) -> Any:
    return [dict(end.transport.reuse._until_s) for end in endpoints(gateway)]


def refuse_field(gateway: Gateway) -> None:
    chat(gateway).dialect.learn("chat", [Addition("usage", "stream_options", ())])


ASKED = prompt([("hello", 5)], "t")


def cache(gateway: Gateway) -> None:
    held = chat(gateway).cache
    assert held is not None
    held.saw(ASKED, gateway.clock())


def cached(gateway: Gateway) -> Any:
    held = chat(gateway).cache
    assert held is not None
    return held.covers(ASKED, gateway.clock())


def retry(gateway: Gateway) -> None:
    retries = gateway.routes["r"].retries
    while retries.take():
        pass
    retries.retries.static_responses += 1


def hedge(gateway: Gateway) -> None:
    hedged = gateway.routes["r"].hedge
    assert hedged is not None
    for _ in range(KNOWN_AT + 5):
        hedged.observe("chat", 0.3)
    hedged.spend()
    hedged.waits.won += 1


def hedged(gateway: Gateway) -> Any:
    found = gateway.routes["r"].hedge
    assert found is not None
    return found.wait_s("chat"), found.waits


def use_up(gateway: Gateway) -> None:
    now_s = gateway.clock()
    for _ in range(5):
        gateway.rates["t"].admit(now_s)
    gateway.control.rates.admit("t", FEEDBACK_MAX, now_s)


def rate_left(gateway: Gateway) -> Any:
    def admits(admit: Callable[[], None]) -> bool:
        try:
            admit()
        except HttpProblem:
            return False
        return True

    now_s = gateway.clock()
    return (
        admits(lambda: gateway.rates["t"].admit(now_s)),
        admits(lambda: gateway.control.rates.admit("t", FEEDBACK_MAX, now_s)),
    )


def see(gateway: Gateway) -> None:
    route = gateway.routes["r"]
    route.inputs.see((1.0,))
    call = Call(b"POST", b"/", [], b"{}")
    route.features(call)
    route.bound["all"] = 12
    assert route.auditor is not None
    route.auditor.learned("other")
    route.auditor._owed = 1.5
    quote = route.estimator.quote(_context(), "chat", chat(gateway).price, Usage(exact=False))
    route.estimator.observe(
        _context(), "chat", quote, chat(gateway).price, Usage(1, 1.0, 10, 0, 20)
    )


def _context() -> Any:
    return Context(())


def seen(gateway: Gateway) -> Any:
    route = gateway.routes["r"]
    assert route.auditor is not None
    return (
        route.inputs._count,
        route.features.save(),
        route.bound["all"],
        route.auditor.save(),
        route.estimator.accuracy()["chat"],
        id(route.policy),
    )


STATES = {
    "the breaker": State(fail, lambda g: (chat(g).breaker.is_open, id(chat(g).breaker))),
    "a rest": State(
        lambda g: chat(g).rest.begin(g.clock(), 50.0, "t"),
        lambda g: chat(g).rest.left_s(g.clock(), "t") > 40.0,
    ),
    "the credential": State(refuse_key, credential_of),
    "the limit found": State(narrow, limit_of),
    "the queue": State(shed, queue_of),
    "addresses left out": State(eject, ejected),
    "keep-alive": State(close_early, reuse_of),
    "fields refused": State(refuse_field, lambda g: chat(g).dialect.refused),
    "the prompt cache": State(cache, cached),
    "retries": State(retry, lambda g: g.routes["r"].state.retries),
    "hedging": State(hedge, hedged),
    "rates": State(use_up, rate_left),
    "what was seen": State(see, seen),
}


async def with_gateway(
    folder: Path, use: Callable[[Gateway, Callable[[str], Awaitable[Any]]], Awaitable[None]]
) -> None:
    gateway = build(
        config.parse(BASE, {}, folder=folder),
        clock=asyncio.get_running_loop().time,
        rng=random.Random(0),
    )
    text = BASE

    async def reload(now: str) -> Any:
        nonlocal text
        text = now
        return await reloader.reload()

    reloader = Reloader(gateway, lambda: config.parse(text, {}, folder=folder))
    await gateway.open()
    try:
        await use(gateway, reload)
    finally:
        await reloader.close()
        await gateway.close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TEST_PROVIDER_KEY", "sk-1")
    yield


@pytest.mark.parametrize("change", CHANGES)
def test_a_reload_keeps_all_state_that_it_does_not_concern(tmp_path: Path, change: str) -> None:
    async def use(gateway: Gateway, reload: Callable[[str], Awaitable[Any]]) -> None:
        fresh = {name: state.read(gateway) for name, state in STATES.items() if name in CHEAP}
        for state in STATES.values():
            state.change(gateway)
        before = {name: state.read(gateway) for name, state in STATES.items()}
        for name, was in fresh.items():
            assert before[name] != was, f"the test changes nothing of {name}"
        await reload(CHANGES[change])
        after = {name: state.read(gateway) for name, state in STATES.items()}
        assert after == before

    asyncio.run(with_gateway(tmp_path, use))


CHEAP = (
    "the breaker",
    "a rest",
    "the limit found",
    "the queue",
    "addresses left out",
    "keep-alive",
    "fields refused",
    "the prompt cache",
)
"""States whose reading changes nothing and needs nothing to be there."""


def test_another_server_under_the_same_name_starts_without_state(tmp_path: Path) -> None:
    async def use(gateway: Gateway, reload: Callable[[str], Awaitable[Any]]) -> None:
        for state in STATES.values():
            state.change(gateway)
        await reload(swapped((":9", ":8")))
        assert not chat(gateway).breaker.is_open
        assert chat(gateway).rest.left_s(gateway.clock(), "t") == 0.0
        assert chat(gateway).dialect.refused == frozenset()
        assert queue_of(gateway)[:2] == (0, 0)
        assert cached(gateway) == 0.0
        route = gateway.routes["r"]
        assert route.hedge is not None
        assert route.hedge.wait_s("chat") is None
        assert route.state.retries.denied == 1  # the route's count, for any backend

    asyncio.run(with_gateway(tmp_path, use))


def test_what_vanishes_is_dropped(tmp_path: Path) -> None:
    async def use(gateway: Gateway, reload: Callable[[str], Awaitable[Any]]) -> None:
        await reload(CHANGES["a backend added"])
        route = gateway.routes["r"]
        assert route.hedge is not None
        for _ in range(KNOWN_AT + 1):
            route.hedge.observe("third", 0.3)
        route.bound["all"] = 3
        use_up(gateway)
        await reload(BASE.partition("[[budgets]]")[0].replace('name = "t"', 'name = "u"'))
        route = gateway.routes["r"]
        assert route.hedge is not None
        assert "third" not in route.hedge.waits.waits_s
        assert route.bound == {}
        assert list(gateway.rates) == ["u"]
        await reload(BASE)
        assert rate_left(gateway) == (True, True)  # a tenant that came back is new

    asyncio.run(with_gateway(tmp_path, use))


def test_a_reload_that_fails_changes_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(gateway: Gateway, reload: Callable[[str], Awaitable[Any]]) -> None:
        async def down(budgets: Any) -> None:
            raise LedgerUnavailable("the ledger does not answer")

        for state in STATES.values():
            state.change(gateway)
        before = {name: state.read(gateway) for name, state in STATES.items()}
        slots = chat(gateway).slots
        assert slots is not None
        limit = slots.limit
        monkeypatch.setattr(gateway.reservations, "revise", down)
        with pytest.raises(LedgerUnavailable):
            await reload(CHANGES["limits of calls"].replace("concurrency = 50", "concurrency = 1"))
        assert {name: state.read(gateway) for name, state in STATES.items()} == before
        assert slots.limit == limit

    asyncio.run(with_gateway(tmp_path, use))


def test_an_action_that_cannot_be_built_changes_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(gateway: Gateway, reload: Callable[[str], Awaitable[Any]]) -> None:
        def broken(*_: Any) -> Any:
            raise ValueError("no transport for this")

        before = gateway.settings, dict(gateway.backends), dict(gateway.routes)
        monkeypatch.setattr(reloading, "build_actions", broken)
        with pytest.raises(ValueError, match="no transport"):
            await reload(CHANGES["limits of calls"])
        assert (gateway.settings, dict(gateway.backends), dict(gateway.routes)) == before

    asyncio.run(with_gateway(tmp_path, use))


CONFIGURED = {
    Target: {
        "protocol",
        "price",
        "fixed",
        "tariff",
        "keyed",
        "on_price",
        "expects",
        "headers",
        "unbound",
        "_added",
    },
    RoutePlan: {
        *("protocol", "backends", "unpriced", "objective", "score", "request_schema", "fallbacks"),
        "texts",
        "online",  # its groups are kept, under (features, NAME)
        "signals",
        "sticky",
        "hidden",  # by the rollouts, which a reload keeps
    },
}
KEPT = {
    Target: {
        "breaker",
        "rest",
        "announced",
        "slots",
        "transport",
        "cache",
        "start",
        "dialect",
        "credential",
        "keys",
        "key_rest",
        "trial",
    },
    RoutePlan: {
        *(
            "policy",
            "estimator",
            "features",
            "bound",
            "cache",
            "auditor",
            "state",
            "retries",
            "hedge",
            "inputs",
            "paced_by",
            "traffic",
            "influence",
            "trust",
            "signalled",
        ),
    },
}


def is_value(kind: Any) -> bool:
    """Return whether a type's values are immutable, and so hold no state."""
    parts = get_args(kind)
    if kind in {str, bytes, int, float, bool, type(None), Ellipsis}:
        return True
    immutable = isinstance(kind, UnionType) or get_origin(kind) in {tuple, frozenset, Union}
    return immutable and all(map(is_value, parts))


@pytest.mark.parametrize("kind", [Target, RoutePlan])
def test_every_object_is_either_configured_or_kept(kind: Any) -> None:
    """An object that is new here must be decided about: see gateway/wiring/states.py."""
    objects = {name for name, what in get_type_hints(kind).items() if not is_value(what)}
    assert objects == CONFIGURED[kind] | KEPT[kind]
    assert not CONFIGURED[kind] & KEPT[kind]


def test_a_lower_concurrency_binds_at_once_and_counts_the_calls_under_way(tmp_path: Path) -> None:
    async def use(gateway: Gateway, reload: Callable[[str], Awaitable[Any]]) -> None:
        slots = chat(gateway).slots
        assert slots is not None
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await slots.enter(loop.time() + 5)
        waiting = asyncio.ensure_future(asyncio.sleep(0))
        await reload(swapped(("timeout_s = 30", "concurrency = 3\nqueue_s = 5")))
        now = chat(gateway).slots
        assert now is not None
        assert (now.busy, now.limit) == (3, 3)
        waiting = asyncio.ensure_future(now.enter(loop.time() + 5))
        await asyncio.sleep(0)
        assert now.waiting == 1
        await reload(swapped(("timeout_s = 30", "concurrency = 4\nqueue_s = 5")))
        await waiting
        assert now.busy == 4

    asyncio.run(with_gateway(tmp_path, use))


def test_who_has_all_workers_reloaded_sees_the_new_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        now = BASE
        gateway = build(
            config.parse(BASE, {}, folder=tmp_path),
            clock=asyncio.get_running_loop().time,
            rng=random.Random(0),
        )
        reloader = Reloader(gateway, lambda: config.parse(now, {}, folder=tmp_path))
        # The supervisor's part: it tells this worker.
        monkeypatch.setattr(os, "kill", lambda pid, number: reloader.begin())
        await gateway.open()
        try:
            before = gateway.settings
            now = f'environment = "staging"\n{BASE}'
            assert await reloader.ask_all(Actor("kim", "admin")) == ["environment staging"]
            assert gateway.settings.environment == "staging" != before.environment
        finally:
            await reloader.close()
            await gateway.close()

    asyncio.run(main())
