"""A backend that says that nothing is left of its rate limit is left out before it refuses."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.harness import run, running, serving
from tollway.backends.rules.backend import WholeRequestRules
from tollway.backends.types import Headers, HttpReply, Usage
from tollway.gateway.routing.health.announced import (
    CONTRADICTIONS_MAX,
    IGNORED_MAX_S,
    WAIT_MAX_S,
    Announced,
    Room,
    read,
)

WALL_S = 1_790_000_000.0  # 2026-09-21T14:13:20Z


USAGE = Usage(input_tokens=5, output_tokens=5)


def reply(status: int, headers: Headers) -> HttpReply:
    return HttpReply(status, headers, WholeRequestRules(b""))


def fields(**values: object) -> Headers:
    return [(name.replace("_", "-").encode(), str(one).encode()) for name, one in values.items()]


@pytest.mark.parametrize(
    ("headers", "rooms"),
    [
        (
            fields(
                x_ratelimit_limit_requests=60,
                x_ratelimit_remaining_requests=59,
                x_ratelimit_reset_requests="1s",
                x_ratelimit_limit_tokens=150_000,
                x_ratelimit_remaining_tokens=149_984,
                x_ratelimit_reset_tokens="6m0s",
            ),
            [Room("requests", 59, 60, 1), Room("tokens", 149_984, 150_000, 360)],
        ),
        (
            fields(
                anthropic_ratelimit_input_tokens_limit=50,
                anthropic_ratelimit_input_tokens_remaining=0,
                anthropic_ratelimit_input_tokens_reset="2026-09-21T14:13:50Z",
            ),
            [Room("input-tokens", 0, 50, 30)],
        ),
        (fields(ratelimit_remaining=3, ratelimit_reset=7), [Room("", 3, None, 7)]),
        (
            fields(x_ratelimit_remaining=3, x_ratelimit_reset=int((WALL_S + 5) * 1000)),
            [Room("", 3, None, 5)],
        ),
        (
            fields(x_ratelimit_remaining=3, x_ratelimit_reset=int(WALL_S + 5)),
            [Room("", 3, None, 5)],
        ),
        (
            fields(x_ratelimit_remaining_requests_day=3, x_ratelimit_reset_requests_day="2m59.5s"),
            [Room("requests-day", 3, None, 179.5)],
        ),
        (fields(x_ratelimit_remaining_requests=3), [Room("requests", 3, None, None)]),
        (fields(x_ratelimit_remaining_requests="many", x_ratelimit_reset_requests="soon"), []),
        (fields(x_ratelimit_remaining_requests=-1), []),
        (fields(x_ratelimit_remaining_requests="9" * 400), []),
        (
            fields(x_ratelimit_remaining=1, x_ratelimit_reset="2026-09-21T14:13:50"),
            [Room("", 1, None, None)],
        ),
        (fields(x_ratelimit_remaining=1, x_ratelimit_reset="-5"), [Room("", 1, None, 0)]),
        (fields(x_ratelimit_remaining=1, x_ratelimit_reset="120ms"), [Room("", 1, None, 0.12)]),
        (fields(x_ratelimit_type="requests", x_ratelimited="1"), []),
    ],
)
def test_the_fields_of_providers_are_read(headers: Headers, rooms: list[Room]) -> None:
    assert read(headers, WALL_S) == rooms


NAMES = st.sampled_from(
    [b"x-ratelimit-remaining", b"x-ratelimit-reset", b"x-ratelimit-limit", b"ratelimit-remaining"]
)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=12)), max_size=4))
def test_no_field_leaves_a_backend_out_for_long(headers: Headers) -> None:
    announced = Announced(lambda: WALL_S)
    announced.heard(announced.begin(5.0), reply(200, headers), USAGE, 5.0)
    assert announced.until_s <= 5.0 + WAIT_MAX_S


def heard(
    announced: Announced, now_s: float, *, status: int = 200, tokens: float = 10, **values: object
) -> float:
    """Make a call and hear its reply; return for how long the backend is left out then."""
    number = announced.begin(now_s)
    given = fields(**{f"x_ratelimit_{name}": value for name, value in values.items()})
    usage = Usage(input_tokens=tokens / 2, output_tokens=tokens / 2)
    announced.heard(number, reply(status, given), usage, now_s)
    return max(0.0, announced.until_s - now_s)


def test_with_nothing_left_it_is_left_out_until_one_more_call_fits() -> None:
    announced = Announced(lambda: WALL_S)
    requests = {"limit_requests": 60, "reset_requests": "60s"}
    assert heard(announced, 0.0, remaining_requests=1, **requests) == 0.0
    assert heard(announced, 1.0, remaining_requests=0, **requests) == pytest.approx(1.0)
    tokens = {"limit_tokens": 1000, "reset_tokens": "4s"}
    assert heard(announced, 9.0, remaining_tokens=500, tokens=400, **tokens) == 0.0
    assert heard(announced, 9.5, remaining_tokens=500, tokens=750, **tokens) == pytest.approx(2.0)
    assert heard(announced, 20.0, remaining_tokens=999, tokens=10**6, **tokens) == pytest.approx(
        4.0
    )
    assert heard(announced, 30.0, remaining_requests=0, reset_requests="1h") == WAIT_MAX_S


def test_calls_that_began_since_are_subtracted() -> None:
    announced = Announced(lambda: WALL_S)
    first = announced.begin(0.0)
    for _ in range(3):
        announced.begin(0.1)
    room = fields(x_ratelimit_remaining_requests=5, x_ratelimit_reset_requests="8s")
    announced.heard(first, reply(200, room), USAGE, 1.0)
    assert announced.until_s == 0.0
    announced.begin(1.1)
    assert announced.until_s == 0.0
    announced.begin(1.2)
    assert announced.until_s == 9.0


def test_fields_that_are_wrong_are_ignored_and_a_429_restores_them() -> None:
    announced = Announced(lambda: WALL_S)
    empty = {"remaining_requests": 0, "reset_requests": "1h"}
    now_s, waits = 0.0, []
    for _ in range(CONTRADICTIONS_MAX + 20):
        waits.append(heard(announced, now_s, **empty))
        now_s += waits[-1] + 0.01
    assert waits[:CONTRADICTIONS_MAX] == pytest.approx([WAIT_MAX_S] * CONTRADICTIONS_MAX)
    assert set(waits[CONTRADICTIONS_MAX:]) == {0.0}
    assert heard(announced, now_s, status=429, **empty) == pytest.approx(WAIT_MAX_S)
    assert IGNORED_MAX_S <= 600.0


CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "cheap"
kind = "api"
protocol = "openai"
url = "{url}/cheap"
price = {{ per_request_usd = 0.001 }}

[[backends]]
name = "dear"
kind = "api"
protocol = "openai"
url = "{url}/dear"
price = {{ per_request_usd = 0.1 }}

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = {backends}
policy = "cheapest"
"""
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("backends", "called"), [('["cheap", "dear"]', ["cheap", "dear"]), ('["cheap"]', ["cheap"] * 2)]
)
def test_the_next_request_goes_elsewhere_if_there_is_another_backend(
    tmp_path: Path, backends: str, called: list[str]
) -> None:
    async def model(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        given = [(b"content-type", b"application/json")]
        given += fields(x_ratelimit_remaining_requests=0, x_ratelimit_reset_requests="9s")
        body = orjson.dumps(
            {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}]}
        )
        await send({"type": "http.response.start", "status": 200, "headers": given})
        await send({"type": "http.response.body", "body": body})

    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, backends=backends), tmp_path) as tollway,
        ):
            path, seen = f"{tollway.url}/v1/chat/completions", []
            for _ in range(2):
                reply = await tollway.client.post(path, json=ASK)
                assert reply.status_code == 200
                seen.append(reply.headers["x-tollway-backend"])
            assert seen == called
            metrics = (await tollway.client.get(tollway.url + "/metrics")).text
            avoided = 'tollway_backend_rate_limit_avoided_total{backend="cheap"} '
            assert f"{avoided}{float(called[1] == 'dear'):g}" in metrics

    run(main)
