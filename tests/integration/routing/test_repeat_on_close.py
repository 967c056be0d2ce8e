"""A call that a closed connection may have lost is repeated only if that is configured."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.contracts.wire_server import Wire, wire_server
from tests.support.harness import run, running

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "one"
kind = "gpu"
protocol = "oip"
url = "{url}"
price = {{ per_request_usd = 0.25 }}
{backend}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["one"]

[[budgets]]
name = "all"
limit_usd = 10.0
window = "month"
"""
ANSWER = orjson.dumps(
    {
        "model_name": "m",
        "outputs": [{"name": "y", "shape": [1], "datatype": "INT64", "data": [1]}],
    }
)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
NANO = 250_000_000


async def closes_second(wire: Wire) -> None:
    """Answer the first request of a connection, read the second, and close."""
    await wire.request()
    await wire.say(OK)
    await wire.request()


async def fails_and_closes(wire: Wire) -> None:
    """Answer 500 as if the connection were kept, and close it at the next request."""
    await wire.request()
    await wire.say(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops")
    await wire.request()


async def second(folder: Path, backend: str, **fields: str) -> tuple[Any, list[Any], int, int]:
    """Return the second call's reply, its attempts, what all cost, and requests made."""
    async with wire_server(closes_second) as server:
        async with running(CONFIG.format(url=server.url, backend=backend), folder) as tollway:
            assert (await tollway.infer()).status_code == 200
            reply = await tollway.infer(**fields)
            decision = tollway.gateway.recent[-1]
            told = await tollway.get(f"/_tollway/decisions/{decision}")
            (budget,) = (await tollway.get("/_tollway/budgets"))["budgets"]
            return reply, told["attempts"], budget["spent_nano"], len(server.requests)


def test_a_call_that_may_have_run_is_charged_and_not_repeated(tmp_path: Path) -> None:
    async def main() -> None:
        reply, attempts, spent_nano, asked = await second(tmp_path, "")
        assert reply.status_code == 502
        assert [attempt["cost_nano"] for attempt in attempts] == [NANO]
        assert (spent_nano, asked) == (2 * NANO, 2)

    run(main)


def test_where_it_is_repeated_each_attempt_is_reserved_written_down_and_charged(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        reply, attempts, spent_nano, asked = await second(tmp_path, "repeat_on_close = true")
        assert reply.status_code == 200
        assert [bool(attempt["error"]) for attempt in attempts] == [True, False]
        assert [attempt["cost_nano"] for attempt in attempts] == [NANO, NANO]
        assert reply.headers["x-tollway-cost-usd"] == "0.500000000"
        assert (spent_nano, asked) == (3 * NANO, 3)

    run(main)


def test_it_is_not_repeated_beyond_the_clients_own_ceiling(tmp_path: Path) -> None:
    async def main() -> None:
        ceiling = {"x_tollway_max_cost_usd": "0.4"}
        reply, attempts, _, asked = await second(tmp_path, "repeat_on_close = true", **ceiling)
        assert (reply.status_code, len(attempts), asked) == (502, 1, 2)

    run(main)


def test_it_is_not_repeated_where_the_budget_has_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        toml = CONFIG.replace("limit_usd = 10.0", 'limit_usd = 0.5\nenforcement = "hard"')
        async with wire_server(closes_second) as server:
            config = toml.format(url=server.url, backend="repeat_on_close = true")
            async with running(config, tmp_path) as tollway:
                assert (await tollway.infer()).status_code == 200
                assert (await tollway.infer()).status_code == 502
                assert len(server.requests) == 2

    run(main)


def test_no_call_is_sent_on_a_connection_whose_server_has_failed(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_server(fails_and_closes) as server:
            async with running(CONFIG.format(url=server.url, backend=""), tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(2)]
        assert [(reply.status_code, reply.text) for reply in replies] == [(500, "oops")] * 2

    run(main)
