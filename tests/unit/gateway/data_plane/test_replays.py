"""Idempotency keys: a retry is called and charged once."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.until import until
from tollway.gateway.data_plane.idempotency import IdempotencyStore, StoredResponse
from tollway.gateway.data_plane.problems import HttpProblem

KEY = ("acme", "m", b"k")


def store(bytes_max: int = 1 << 20) -> IdempotencyStore:
    return IdempotencyStore(keeps_s=10.0, bytes_max=bytes_max)


def answered(idempotency: IdempotencyStore, name: bytes, now_s: float, body: bytes = b"x") -> None:
    key = ("acme", "m", name)
    assert idempotency.begin(key, b"print", now_s) is None
    idempotency.end(key, StoredResponse(200, [], body), now_s)


def test_an_answer_is_kept_for_its_time_and_no_longer() -> None:
    idempotency = store()
    answered(idempotency, b"k", 0.0)
    assert idempotency.begin(KEY, b"print", 10.0) == StoredResponse(200, [], b"x")
    assert idempotency.begin(KEY, b"print", 10.1) is None
    assert idempotency.size_bytes == 0


def test_a_key_of_another_tenant_is_another_key() -> None:
    idempotency = store()
    answered(idempotency, b"k", 0.0)
    assert idempotency.begin(("other", "m", b"k"), b"print", 0.0) is None


def test_the_store_stays_within_its_bytes_and_the_oldest_go_first() -> None:
    idempotency = store(10_000)
    for n in range(100):
        answered(idempotency, b"%d" % n, 0.0, bytes(1000))
        assert idempotency.size_bytes <= 10_000
    assert idempotency.begin(("acme", "m", b"99"), b"print", 0.0) is not None
    assert idempotency.begin(("acme", "m", b"0"), b"print", 0.0) is None


def test_a_failure_is_not_kept_and_may_be_tried_again() -> None:
    idempotency = store()
    for kept in (None, StoredResponse(503, [], b"")):
        assert idempotency.begin(KEY, b"print", 0.0) is None
        idempotency.end(KEY, kept, 0.0)
    assert idempotency.begin(KEY, b"other", 0.0) is None


def test_another_request_under_the_key_is_refused_and_the_same_waits() -> None:
    idempotency = store()
    assert idempotency.begin(KEY, b"print", 0.0) is None
    with pytest.raises(HttpProblem) as same:
        idempotency.begin(KEY, b"print", 0.0)
    with pytest.raises(HttpProblem) as other:
        idempotency.begin(KEY, b"other", 0.0)
    assert (same.value.status, other.value.status) == (409, 422)
    idempotency.end(KEY, StoredResponse(200, [], b""), 0.0)
    with pytest.raises(HttpProblem):
        idempotency.begin(KEY, b"other", 0.0)


@pytest.mark.integration
def test_a_retry_gets_the_stored_response_and_is_charged_once(tmp_path: Path) -> None:
    cheap = Upstream(hold=asyncio.Event())

    async def main() -> None:
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, more=budget("cap", "1.0")), tmp_path) as tollway:
                first = asyncio.create_task(tollway.infer(idempotency_key="once"))
                await until(lambda: cheap.calls)
                assert (await tollway.infer(idempotency_key="once")).status_code == 409
                cheap.hold.set()
                reply, again = await first, await tollway.infer(idempotency_key="once")
                assert (reply.status_code, again.status_code) == (200, 200)
                assert again.content == reply.content
                decision = "x-tollway-decision"
                assert again.headers[decision] == reply.headers[decision]
                assert again.headers["idempotency-replayed"] == "true"
                assert (await tollway.infer(5.0, idempotency_key="once")).status_code == 422
                assert cheap.calls == 1
                assert cheap.requests[0][2][b"idempotency-key"] == b"once"
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == 100_000

    run(main)
