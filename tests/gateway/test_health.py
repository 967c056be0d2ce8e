"""What counts against a backend, and what one caller cannot do to the others."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from configs import two_backends
from harness import Running, Upstream, inference, run, running, serving

from gateway.auth import hash_key, new_key
from gateway.breaker import FAILURES_IN_A_ROW, SOLE_FAILURES, Breaker
from gateway.rest import Rest, asked_for

A, B = new_key(), new_key()
TENANTS = "".join(
    f'\n[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(key)}"\n'
    for name, key in (("a", A), ("b", B))
)


def alone(url: str, route: str = "fallback = false", backend: str = "") -> str:
    config = two_backends(url, url, server="", route=route, backend=backend, more=TENANTS)
    return config.replace('["cheap", "dear"]', '["cheap"]')


async def ask(tollway: Running, key: str, **headers: str) -> Any:
    return await tollway.infer(authorization=f"Bearer {key}", **headers)


def test_one_callers_failures_alone_open_nothing_for_another() -> None:
    breaker = Breaker()
    for _ in range(10 * SOLE_FAILURES):
        breaker.suspected(0.0, "a")
    assert not breaker.is_open
    assert not breaker.allows(0.0, "a")
    assert breaker.allows(0.0, "b")
    breaker.probe(0.0, "b")
    breaker.succeeded()
    assert breaker.allows(0.0, "a")


def test_a_caller_that_rests_is_let_through_after_the_pause() -> None:
    breaker = Breaker()
    for _ in range(SOLE_FAILURES):
        breaker.suspected(0.0, "a")
    assert not breaker.allows(0.5, "a")
    assert breaker.allows(1.0, "a")
    breaker.probe(1.0, "a")
    assert not breaker.allows(1.5, "a")
    breaker.suspected(1.5, "a")
    assert not breaker.allows(3.0, "a")
    assert breaker.allows(3.5, "a")


@pytest.mark.parametrize("callers", ["abababab", "aaaab", "abbbb", "aaaaaaaab"])
def test_what_several_callers_see_opens_it_as_quickly_as_ever(callers: str) -> None:
    breaker = Breaker()
    for n, caller in enumerate(callers, start=1):
        breaker.suspected(0.0, caller)
        if breaker.is_open:
            assert n == max(FAILURES_IN_A_ROW, callers.index("b") + 1)
            return
    raise AssertionError("it stayed closed")


def test_a_success_clears_a_suspicion() -> None:
    breaker = Breaker()
    for _ in range(20):
        breaker.suspected(0.0, "a")
        breaker.suspected(0.0, "b")
        breaker.succeeded()
    assert not breaker.is_open


@pytest.mark.parametrize(
    ("status", "said", "seconds"),
    [
        (429, b"7", 7.0),
        (429, b"3600", 60.0),
        (429, None, 1.0),
        (429, b"soon", 1.0),
        (429, b"-5", 1.0),
        (429, b"9" * 400, 60.0),
        (429, b"Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        (429, b"Thu, 01 Jan 1970 00:00:00 GMT", 1.0),
        (503, b"3", 3.0),
        (503, None, 0.0),
        (500, b"3", 0.0),
    ],
)
def test_a_rest_is_as_long_as_asked_within_bounds(
    status: int, said: bytes | None, seconds: float
) -> None:
    headers = [] if said is None else [(b"retry-after", said)]
    assert asked_for(status, headers, 1000.0) == seconds


def test_a_rest_is_one_callers_until_another_is_told_the_same() -> None:
    rest = Rest()
    rest.begin(0.0, 5.0, "a")
    assert (rest.left_s(1.0, "a"), rest.left_s(1.0, "b")) == (4.0, 0.0)
    rest.begin(1.0, 5.0, "b")
    assert (rest.left_s(2.0, "a"), rest.left_s(2.0, "c")) == (4.0, 4.0)
    assert rest.left_s(6.0, "c") == 0.0


@pytest.mark.integration
@pytest.mark.parametrize("status", [400, 404, 405, 410, 422, 500, 501, 505])
def test_what_one_tenant_gets_shuts_nobody_else_out(tmp_path: Path, status: int) -> None:
    said = b'{"error": "upstream says so"}'
    upstream = Upstream(status=status, body=said, headers=[(b"x-request-id", b"r1")])

    async def main() -> None:
        async with serving(upstream) as url, running(alone(url), tmp_path) as t:
            for _ in range(8):
                reply = await ask(t, A)
                assert (reply.status_code, reply.content) == (status, said)
                assert reply.headers["x-request-id"] == "r1"
            upstream.status, upstream.body = 200, None
            assert (await ask(t, B)).status_code == 200
            assert (await ask(t, A)).status_code == 200

    run(main)


@pytest.mark.integration
@pytest.mark.parametrize(("status", "calls"), [(502, 5), (503, 5), (504, 5), (500, 5)])
def test_a_backend_that_is_down_for_everybody_is_left_alone(
    tmp_path: Path, status: int, calls: int
) -> None:
    upstream = Upstream(status=status, body=b"{}")

    async def main() -> None:
        async with serving(upstream) as url, running(alone(url), tmp_path) as t:
            for n in range(12):
                await ask(t, (A, B)[n % 2])
            assert upstream.calls == calls

    run(main)


@pytest.mark.integration
def test_deadlines_that_clients_choose_count_against_nobody(tmp_path: Path) -> None:
    upstream = Upstream(delay_s=0.3)

    async def main() -> None:
        async with serving(upstream) as url, running(alone(url), tmp_path) as t:
            for _ in range(7):
                assert (await ask(t, A, x_tollway_deadline_ms="20")).status_code == 504
            assert (await ask(t, B)).status_code == 200

    run(main)


@pytest.mark.integration
def test_our_own_timeouts_count_at_once(tmp_path: Path) -> None:
    upstream = Upstream(delay_s=5.0)

    async def main() -> None:
        config = alone(url_of[0], backend="timeout_s = 0.05")
        async with running(config, tmp_path) as t:
            for _ in range(8):
                await ask(t, A)
            assert upstream.calls == FAILURES_IN_A_ROW

    url_of: list[str] = []

    async def outer() -> None:
        async with serving(upstream) as url:
            url_of.append(url)
            await main()

    run(outer)


@pytest.mark.integration
def test_a_429_is_passed_on_and_its_backend_rests_as_long_as_it_asked(tmp_path: Path) -> None:
    said = orjson.dumps({"error": {"message": "slow down", "type": "requests"}})
    headers = [(b"retry-after", b"7"), (b"x-ratelimit-remaining-requests", b"0")]
    upstream = Upstream(status=429, body=said, headers=headers)

    async def main() -> None:
        async with serving(upstream) as url, serving(Upstream()) as other:
            async with running(alone(url), tmp_path) as t:
                reply = await ask(t, A)
                assert (reply.status_code, reply.content) == (429, said)
                assert reply.headers["retry-after"] == "7"
                assert reply.headers["x-ratelimit-remaining-requests"] == "0"
                for _ in range(10):
                    reply = await ask(t, A)
                    assert reply.status_code == 429
                    assert reply.headers["retry-after"] in {"7", "6"}
                    assert "breaker" not in reply.text
                assert upstream.calls == 1
            folder = tmp_path / "two"
            folder.mkdir()
            upstream.calls = 0
            config = two_backends(url, other, server="", more=TENANTS)
            async with running(config, folder) as t:
                replies = [await ask(t, A) for _ in range(6)]
                assert {reply.status_code for reply in replies} == {200}
                assert upstream.calls == 1

    run(main)


@pytest.mark.integration
def test_of_several_failures_the_last_reply_is_told_but_a_429_first(tmp_path: Path) -> None:
    async def main() -> None:
        for n, (first, second, told) in enumerate(
            [(500, 503, 503), (404, 500, 500), (429, 500, 429), (500, 404, 404)]
        ):
            a, b = (Upstream(status=s, body=b'{"s": %d}' % s) for s in (first, second))
            async with serving(a) as one, serving(b) as two:
                folder = tmp_path / str(n)
                folder.mkdir()
                async with running(two_backends(one, two), folder) as t:
                    reply = await t.infer()
                    assert (reply.status_code, reply.json()) == (told, {"s": told})

    run(main)


@pytest.mark.integration
def test_a_last_reply_without_http_is_a_problem_of_ours(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as gone:
            pass
        async with running(two_backends(gone, gone), tmp_path) as t:
            reply = await t.client.post(t.url + "/v2/models/m/infer", json=inference())
            assert reply.status_code == 502

    run(main)
