"""Which failures count against a backend, and that one caller cannot harm others."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.until import until
from tollway.gateway.routing import circuit_breaker
from tollway.gateway.routing.circuit_breaker import (
    FAILURES_IN_A_ROW,
    PAUSE_MAX_S,
    PAUSE_S,
    CircuitBreaker,
)
from tollway.gateway.routing.health import evidence, trial
from tollway.gateway.routing.health.rest import Rest, asked_for
from tollway.gateway.routing.health.suspicion import CALLERS_MAX, SOLE_FAILURES
from tollway.gateway.security.keys import hash_key, new_key

A, B, KEY_C = new_key(), new_key(), new_key()
TENANTS = "".join(
    f'\n[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(key)}"\n'
    for name, key in (("a", A), ("b", B), ("c", KEY_C))
)


def alone(url: str, route: str = "fallback = false", backend: str = "") -> str:
    config = two_backends(url, url, server="", route=route, backend=backend, more=TENANTS)
    return config.replace('["cheap", "dear"]', '["cheap"]')


async def ask(tollway: Running, key: str, **headers: str) -> Any:
    return await tollway.infer(authorization=f"Bearer {key}", **headers)


def test_one_callers_failures_alone_open_nothing_for_another() -> None:
    breaker = CircuitBreaker()
    for _ in range(10 * SOLE_FAILURES):
        breaker.suspected(0.0, "a")
    assert not breaker.is_open
    assert not breaker.allows(0.0, "a")
    assert breaker.allows(0.0, "b")
    breaker.probe(0.0, "b")
    breaker.succeeded()
    assert breaker.allows(0.0, "a")


def test_a_caller_that_rests_is_let_through_after_the_pause() -> None:
    breaker = CircuitBreaker()
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
    breaker = CircuitBreaker()
    for n, caller in enumerate(callers, start=1):
        breaker.suspected(0.0, caller)
        if breaker.is_open:
            assert n == max(FAILURES_IN_A_ROW, callers.index("b") + 1)
            return
    raise AssertionError("it stayed closed")


def test_a_success_clears_a_suspicion() -> None:
    breaker = CircuitBreaker()
    for _ in range(20):
        breaker.suspected(0.0, "a")
        breaker.suspected(0.0, "b")
        breaker.succeeded()
    assert not breaker.is_open


def test_bad_requests_of_some_callers_never_cause_refusals_for_others() -> None:
    breaker, now_s = CircuitBreaker(), 0.0
    for n in range(3000):
        now_s += 0.01
        caller = f"bad{n % (CALLERS_MAX - 1)}"
        if breaker.allows(now_s, caller):
            breaker.probe(now_s, caller)
            breaker.suspected(now_s, caller)
        assert breaker.allows(now_s, "good")
    assert breaker.is_open
    breaker.probe(now_s, "good")
    breaker.succeeded()
    assert not breaker.is_open and breaker.allows(now_s, "bad0")


def test_bad_requests_among_good_ones_never_open_it() -> None:
    breaker = CircuitBreaker()
    for n in range(1000):
        breaker.suspected(0.0, "ab"[n % 2])
        if n % 4 == 3:
            breaker.succeeded()
        assert not breaker.is_open


def test_suspicions_do_not_turn_one_refused_connection_into_an_outage() -> None:
    breaker = CircuitBreaker()
    for n in range(8):
        breaker.suspected(0.0, "ab"[n % 2])
    breaker.failed(0.0)
    assert breaker.allows(0.0, "good")


def test_one_suspect_does_not_make_another_wait_longer() -> None:
    breaker, now_s = CircuitBreaker(), 0.0
    for caller in "aaaabb":
        breaker.suspected(now_s, caller)
    for _ in range(10):
        now_s += 2 * PAUSE_MAX_S
        breaker.probe(now_s, "a")
        breaker.suspected(now_s, "a")
        assert breaker.allows(now_s, "b")


def test_a_server_that_is_broken_costs_each_caller_one_call_until_many_have_failed() -> None:
    breaker, calls = CircuitBreaker(), 0
    for n in range(10 * CALLERS_MAX):
        caller = f"t{n % (2 * CALLERS_MAX)}"
        if breaker.allows(0.0, caller):
            breaker.probe(0.0, caller)
            breaker.suspected(0.0, caller)
            calls += 1
    assert calls <= CALLERS_MAX + FAILURES_IN_A_ROW
    assert not breaker.allows(0.0, "somebody else")
    assert breaker.allows(PAUSE_S, "somebody else")


def test_a_suspects_probes_come_ever_less_often() -> None:
    breaker = CircuitBreaker()
    for caller in "aaaab":
        breaker.suspected(0.0, caller)
    now_s, probes = 0.0, 0
    while now_s < 100.0:
        now_s += 0.1
        if breaker.allows(now_s, "b"):
            breaker.probe(now_s, "b")
            breaker.suspected(now_s, "b")
            probes += 1
    assert probes <= 8  # after 1, 2, 4, 8, 16, 30, 30 s
    for _ in range(50):  # under way when it failed: they say nothing new
        breaker.suspected(now_s, "b")
    assert breaker.allows(now_s + PAUSE_MAX_S, "b")


def test_a_failing_health_path_opens_it_for_everybody_and_a_good_one_for_nobody() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.suspected(0.0, "a")
        breaker.confirmed(0.0)
        assert not breaker.is_open
    breaker.suspected(0.0, "a")
    breaker.confirmed(0.0)
    assert not breaker.allows(0.0, "b")
    breaker = CircuitBreaker()
    for n in range(10 * FAILURES_IN_A_ROW):
        breaker.suspected(0.0, "ab"[n % 2])
        breaker.cleared()
        assert not breaker.is_open
    assert not breaker.allows(0.0, "a")  # alone, as often as that: it rests
    assert breaker.allows(0.0, "c")


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
        (429, b"7.66", 7.66),
        (429, b"nan", 1.0),
        (429, b"1e9", 1.0),
        (429, b"\xb2", 1.0),
        (529, b"7", 7.0),
        (529, None, 1.0),
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


def test_back_pressure_is_no_failure_of_a_server() -> None:
    for status in (429, 529):
        assert evidence.of_status(status, f"status {status}", local=False) == evidence.UNKNOWN


@pytest.mark.parametrize(
    ("milliseconds", "seconds"), [(b"2500", 2.5), (b"0", 1.0), (b"soon", 7.0), (b"9" * 400, 60.0)]
)
def test_a_rest_in_milliseconds_comes_before_one_in_seconds(
    milliseconds: bytes, seconds: float
) -> None:
    headers = [(b"retry-after", b"7"), (b"retry-after-ms", milliseconds)]
    assert asked_for(429, headers, 1000.0) == seconds


def test_a_pause_is_one_callers_until_another_gets_a_429_too() -> None:
    rest = Rest()
    rest.begin(0.0, 5.0, "a")
    assert (rest.left_s(1.0, "a"), rest.left_s(1.0, "b")) == (4.0, 0.0)
    rest.begin(1.0, 5.0, "b")
    assert (rest.left_s(2.0, "a"), rest.left_s(2.0, "c")) == (4.0, 4.0)
    assert rest.left_s(6.0, "c") == 0.0


@pytest.mark.integration
@pytest.mark.parametrize("status", [400, 404, 405, 410, 422, 500, 501, 505])
def test_one_tenants_failures_exclude_nobody_else(tmp_path: Path, status: int) -> None:
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
@pytest.mark.parametrize(("status", "calls"), [(502, 5), (503, 5), (504, 5), (500, 6)])
def test_a_backend_that_is_down_for_everybody_is_left_alone(
    tmp_path: Path, status: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "PAUSE_S", 60.0)  # else the next probe may come too soon
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
def test_without_any_reply_the_client_gets_the_gateways_own_problem(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as gone:
            pass
        async with running(two_backends(gone, gone), tmp_path) as t:
            reply = await t.client.post(t.url + "/v2/models/m/infer", json=inference())
            assert reply.status_code == 502

    run(main)


class Health:
    """A model server with a scripted health path."""

    def __init__(self, health: int, status: int = 500, hang: bool = False) -> None:
        self.health, self.status, self.hang = health, status, hang
        self.asked = 0
        self.model = Upstream(status=status, body=b"{}")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/well":
            await self.model(scope, receive, send)
            return
        self.asked += 1
        if self.hang:
            await asyncio.sleep(60)
        await send({"type": "http.response.start", "status": self.health, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.integration
@pytest.mark.parametrize("health", [200, 204, 500, 503, 404, 401])
def test_a_health_path_decides_whose_fault_a_500_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, health: int
) -> None:
    monkeypatch.setattr(trial, "EVERY_S", 0.0)

    async def main() -> None:
        server = Health(health)
        async with (
            serving(server) as url,
            running(alone(url, backend='health_path = "/well"'), tmp_path) as t,
        ):
            backend = t.gateway.backends["cheap"]
            assert backend.trial is not None
            for n in range(8):
                await ask(t, A)
                await until(lambda: not backend.trial.is_under_way)
                if health >= 500 and n + 1 >= FAILURES_IN_A_ROW:
                    assert backend.breaker.is_open
                else:
                    assert not backend.breaker.is_open
            for _ in range(6):
                await ask(t, A)
                await ask(t, B)
            server.model.status, server.model.body = 200, None
            expected = 503 if health >= 500 else 200
            assert (await ask(t, KEY_C)).status_code == expected
            assert server.asked >= (FAILURES_IN_A_ROW if health >= 500 else 8)

    run(main)


@pytest.mark.integration
def test_a_health_path_is_asked_once_a_second_whatever_fails_and_nobody_waits_for_it(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        server = Health(200, hang=True)
        async with (
            serving(server) as url,
            running(alone(url, backend='health_path = "/well"'), tmp_path) as t,
        ):
            for _ in range(20):
                assert (await ask(t, A)).status_code == 500
            assert server.asked == 1

    run(main)


@pytest.mark.integration
def test_a_redirect_is_an_address_that_is_wrong_and_leads_no_client_past_the_gateway(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as other:
            moved = Upstream(status=307, body=b"", headers=[(b"location", other.encode())])
            async with serving(moved) as url:
                async with running(alone(url), tmp_path) as t:
                    reply = await ask(t, A)
                    assert reply.status_code == 502
                    assert "location" not in reply.headers
                    assert "redirect" in reply.text
                    assert reply.headers["x-tollway-cost-usd"] == "0.000000000"
                folder = tmp_path / "two"
                folder.mkdir()
                async with running(two_backends(url, other), folder) as t:
                    assert (await t.infer()).headers["x-tollway-backend"] == "dear"

    run(main)


@pytest.mark.integration
def test_a_529_pauses_the_backend_for_that_caller_and_is_free(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        upstream = Upstream(status=529, body=b"{}")
        async with serving(upstream) as url, running(alone(url), tmp_path) as t:
            reply = await ask(t, A)
            assert (reply.status_code, reply.headers["x-tollway-cost-usd"]) == (529, "0.000000000")
            assert (await ask(t, A)).status_code == 429
            assert upstream.calls == 1

    run(main)
