"""What is remembered of requests that may come again is bounded, for each tenant too."""

from random import Random
from types import SimpleNamespace
from typing import Any

from tollway.backends.types import Call
from tollway.gateway.caching.memory import MemoryCache
from tollway.gateway.routing.cached.exact_hits import ExactHits
from tollway.gateway.routing.request import InferenceRequest

ROUTE: Any = None
REPEATS: Any = None


def hits(bytes_max: int = 100_000) -> ExactHits:
    memory = MemoryCache(bytes_max=1000, entries_max=10)
    clock = iter(range(1000)).__next__
    return ExactHits(memory, REPEATS, clock=clock, wall=clock, rng=Random(0), bytes_max=bytes_max)


def head(tenant: str) -> Any:
    return SimpleNamespace(tenant=tenant, hits=None)


def asked(head: Any, body: bytes) -> InferenceRequest:
    call = Call(b"POST", b"/", [], body)
    return InferenceRequest(ROUTE, head.tenant, call, 5.0, 15.0, head=head)


def test_a_request_is_found_under_its_head_and_its_body() -> None:
    one, mine, other = hits(), head("a"), head("b")
    one.remember(asked(mine, b"{}"), b"key")
    assert mine.hits[b"{}"].key == b"key" and other.hits is None
    template = mine.hits[b"{}"].inference
    assert (template.deadline_s, template.head, template.client) == (10.0, None, None)


def test_an_entry_that_is_gone_is_no_hit() -> None:
    one, mine = hits(), head("a")
    one.remember(asked(mine, b"{}"), b"key")
    client: Any = None
    assert one.answer(mine.hits[b"{}"], client, 0.0) is False


def test_a_tenant_with_many_requests_pushes_out_its_own() -> None:
    one, few, many = hits(), head("few"), head("many")
    one.remember(asked(few, b"first"), b"key")
    for number in range(200):
        one.remember(asked(many, b"%d" % number), b"key")
        one.remember(asked(many, b"%d" % number), b"key")  # once
    assert one.size_bytes <= 100_000
    assert one.count == len(few.hits) + len(many.hits) < 40
    assert list(few.hits) == [b"first"] and b"0" not in many.hits and b"199" in many.hits


def test_nothing_is_kept_of_routes_that_a_reload_has_replaced() -> None:
    one, mine = hits(), head("a")
    one.remember(asked(mine, b"{}"), b"key")
    one.clear()
    assert (one.count, one.size_bytes, mine.hits) == (0, 0, {})
    one.remember(asked(mine, b"{}"), b"key")
    assert one.count == 1
