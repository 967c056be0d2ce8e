"""The fallback chain: a route that has one always answers, and each reservation is its own."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tollway.gateway import settings as config
from tollway.gateway.routing.fallback import RETRIES_MAX, RetryBudget, leaving
from tollway.gateway.settings.errors import ConfigError

LAST = '{"outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [7]}]}'
RULES = '[[rules]]\nwhen = ["x > 100"]\nanswer = 9\n[features]\nx = { path = "inputs[0].data", '
RULES += 'take = "sum" }\n[default]\nanswer = 3\n'
RULE_BACKEND = """
[[backends]]
name = "rules"
kind = "rules"
rules = "rules.toml"
price = { per_request_usd = 0.00001 }
"""
SERVER = """
import http.server, sys
BODY = sys.argv[1].encode()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_retries_are_a_share_of_the_requests_once_the_first_are_used() -> None:
    budget = RetryBudget(0.2)
    assert sum(budget.take() for _ in range(1000)) == RETRIES_MAX
    budget = RetryBudget(0.2)
    granted = 0
    for _ in range(10_000):
        budget.earn()
        granted += budget.take()
    assert granted <= 0.2 * 10_000 + RETRIES_MAX
    assert granted >= 0.2 * 10_000


def test_a_route_without_retries_makes_none() -> None:
    budget = RetryBudget(0.0)
    budget.earn()
    assert not budget.take()


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ('fallbacks = ["deer"]', "not among the route's backends"),
        ('fallbacks = ["dear", "dear"]', "twice"),
        ('fallbacks = ["dear"]\nfallback = false', "contradicts fallback = false"),
        ("static_response = '{}'", "is not a valid reply of protocol oip"),
        (
            f"static_response = '{LAST}'\n"
            f'response_schema = [{{ at = "outputs[0].data", range = [0, 1] }}]',
            "violates `response_schema`",
        ),
        ('request_schema = [{ at = "a", datatype = "FP32" }]', "is required with datatype"),
        ('request_schema = [{ at = "a..b" }]', "cannot read the path"),
    ],
)
def test_a_fallback_chain_that_cannot_work_is_refused_at_the_start(
    tmp_path: Path, route: str, why: str
) -> None:
    file = tmp_path / "tollway.toml"
    file.write_text(two_backends("http://127.0.0.1:1", "http://127.0.0.1:2", route=route))
    with pytest.raises(ConfigError, match=why):
        config.load(file, {})


@pytest.mark.integration
def test_every_fallback_is_asked_in_order_and_paid_for(tmp_path: Path) -> None:
    bad = Upstream(status=500, body=b"{}")

    async def main() -> None:
        (tmp_path / "rules.toml").write_text(RULES)
        async with serving(bad) as a, serving(bad) as b:
            route = 'fallbacks = ["dear", "rules"]'
            toml = two_backends(a, b, route=route, more=RULE_BACKEND + budget("cap", "1.0"))
            toml = toml.replace('["cheap", "dear"]', '["cheap", "dear", "rules"]')
            toml = toml.replace('policy = "cheapest"', 'policy = "fixed"')
            toml = toml.replace("context =", 'policy_options = { arm = "cheap" }\ncontext =')
            async with running(toml, tmp_path) as tollway:
                reply = await tollway.infer()
                assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "rules")
                told = [(r["backend"], r["cost_nano"]) for r in tollway.journalled("attempt")]
                assert told == [("cheap", 100_000), ("dear", 1_000_000), ("rules", 10_000)]
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == 1_110_000

    run(main)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answers", "body"),
    [
        ('[{ at = "outputs[0].data[0]", range = [0, 9] }]', None),
        ('[{ tensor = "label", datatype = "FP32" }]', None),
        ('[{ tensor = "label", shape = [2] }]', None),
        ('[{ tensor = "other" }]', None),
        ('[{ tensor = "label" }]', b'{"outputs": [{"name": "label", "sha'),
    ],
    ids=["range", "datatype", "shape", "missing", "truncated"],
)
def test_a_reply_that_violates_the_schema_fails_over_and_trips_no_breaker(
    tmp_path: Path, answers: str, body: bytes | None
) -> None:
    good = orjson.dumps(
        {
            "outputs": [
                {"name": "label", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]},
                {"name": "other", "shape": [1], "datatype": "INT64", "data": [1]},
            ]
        }
    )
    broken = Upstream(label=10, body=body)

    async def main() -> None:
        async with serving(broken) as a, serving(Upstream(body=good)) as b:
            async with running(
                two_backends(a, b, route=f"response_schema = {answers}"), tmp_path
            ) as t:
                replies = [await t.infer() for _ in range(8)]
                assert [reply.status_code for reply in replies] == [200] * 8
                assert {reply.headers["x-tollway-backend"] for reply in replies} == {"dear"}
                assert broken.calls == 8
                failed = [r for r in t.journalled("attempt") if r["backend"] == "cheap"]
                assert {(r["cost_nano"], r["error"][:15]) for r in failed} == {
                    (100_000, "invalid answer:")
                }

    run(main)


@pytest.mark.integration
def test_a_request_that_violates_the_schema_gets_the_field_and_costs_nothing(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            route = 'request_schema = [{ tensor = "x", shape = [1, 4], range = [0, 16] }]'
            async with running(two_backends(a, b, route=route), tmp_path) as tollway:
                reply = await tollway.infer(value=20.0)
                assert (reply.status_code, reply.json()["field"]) == (422, "x")
                assert "must be a number from 0 to 16" in reply.json()["detail"]
                assert not tollway.journalled("attempt")
                assert (await tollway.infer(value=0.0)).status_code == 200

    run(main)


@pytest.mark.integration
def test_the_static_response_answers_where_all_are_dead_but_not_where_money_is_out(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as gone:
            pass
        toml = two_backends(gone, gone, route=f"static_response = '{LAST}'")
        async with running(toml, tmp_path / "dead") as tollway:
            for _ in range(12):  # the breakers open on the way
                reply = await tollway.infer()
                assert reply.status_code == 200
                assert reply.headers["x-tollway-reason"] == "static_response"
                assert reply.json()["outputs"][0]["data"] == [7]
            metrics = (await tollway.client.get(tollway.url + "/metrics")).text
            assert 'tollway_retries_total{result="static_response",route="m"} 12.0' in metrics or (
                'tollway_retries_total{route="m",result="static_response"} 12.0' in metrics
            )
        async with running(toml + budget("none", "0.0"), tmp_path / "poor") as tollway:
            assert (await tollway.infer()).status_code == 402

    run(main)


def test_at_most_a_minute_is_reserved_for_the_fallbacks() -> None:
    assert leaving(0.0, 30.0, wired=True) == 15.0
    assert leaving(0.0, 30.0, wired=False) == 27.0
    assert leaving(0.0, 600.0, wired=True) == 540.0
    assert leaving(570.0, 600.0, wired=True) == 585.0


@pytest.mark.integration
def test_a_backend_that_hangs_leaves_time_for_the_fallbacks(tmp_path: Path) -> None:
    async def main() -> None:
        hangs = Upstream(hold=asyncio.Event())
        async with serving(hangs) as a, serving(Upstream(label=2)) as b:
            route = 'fallbacks = ["dear"]\ntimeout_s = 1.0'
            async with running(two_backends(a, b, route=route), tmp_path) as tollway:
                reply = await tollway.infer()
                assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "dear")
            hangs.hold.set()

    run(main)


@pytest.mark.integration
def test_a_backend_whose_reply_does_not_begin_in_time_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        hangs = Upstream(hold=asyncio.Event())
        async with serving(hangs) as a, serving(Upstream(label=2)) as b:
            backend = "first_byte_timeout_s = 0.2"
            async with running(two_backends(a, b, backend=backend), tmp_path) as tollway:
                reply = await tollway.infer()
                assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "dear")
                first, _ = tollway.journalled("attempt")
                assert first["error"] == "its reply did not begin in time"
                assert first["cost_nano"] == 100_000
                hangs.hold.set()

    run(main)


@pytest.mark.integration
def test_a_dead_address_of_a_backend_is_not_noticed_and_deadlines_go_on(tmp_path: Path) -> None:
    alive, dear = Upstream(), Upstream()

    async def main() -> None:
        async with serving(Upstream()) as gone:
            pass
        async with serving(alive) as a, serving(dear) as b:
            toml = two_backends(gone, b).replace(
                'model = "small"', f'model = "small"\nreplicas = ["{a}"]'
            )
            async with running(toml, tmp_path) as tollway:
                for _ in range(20):
                    reply = await tollway.infer(x_tollway_deadline_ms="5000")
                    assert (reply.status_code, reply.headers["x-tollway-reason"]) != (
                        200,
                        "fallback",
                    )
                    assert reply.headers["x-tollway-backend"] == "cheap"
                assert (alive.calls, dear.calls) == (20, 0)
                left_ms = int(alive.requests[0][2][b"x-tollway-deadline-ms"])
                assert 0 < left_ms <= 5000
                await tollway.infer()
                assert b"x-tollway-deadline-ms" not in alive.requests[-1][2]
                (route,) = (await tollway.get("/_tollway/routes"))["routes"]
                assert {backend["breaker"] for backend in route["backends"]} == {"closed"}

    run(main)


@pytest.mark.integration
def test_with_the_accurate_backend_dead_no_request_fails_the_first_included(
    tmp_path: Path,
) -> None:
    """Real processes: a gateway, and a backend that is killed in the middle of traffic."""
    url = f"http://127.0.0.1:{free_port()}"

    async def burst(client: httpx.AsyncClient, count: int) -> list[httpx.Response]:
        path = url + "/v2/models/m/infer"
        return await asyncio.gather(*(client.post(path, json=inference()) for _ in range(count)))

    accurate = subprocess.Popen(
        [sys.executable, "-c", SERVER, LAST], stdout=subprocess.PIPE, text=True
    )
    assert accurate.stdout is not None
    port = accurate.stdout.readline().strip()

    async def main() -> None:
        (tmp_path / "rules.toml").write_text(RULES)
        dear = f"http://127.0.0.1:{port}"
        toml = two_backends(
            dear,
            dear,
            policy="fixed",
            route='fallbacks = ["rules"]\npolicy_options = { arm = "dear" }',
            server=f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"',
            more=RULE_BACKEND,
            ledger="sqlite:///tollway.db",
        ).replace('["cheap", "dear"]', '["dear", "rules"]')
        (tmp_path / "tollway.toml").write_text(toml)
        gateway = Process(tmp_path / "tollway.toml")
        try:
            await gateway.ready(url)
            async with http_client(timeout=30) as client:
                alive = await burst(client, 20)
                assert {reply.headers["x-tollway-backend"] for reply in alive} == {"dear"}
                dying = asyncio.create_task(burst(client, 200))
                await asyncio.sleep(0)
                accurate.send_signal(signal.SIGKILL)
                accurate.wait()
                first = await burst(client, 1)
                replies = first + await dying + await burst(client, 100)
                assert [r.status_code for r in replies] == [200] * len(replies)
                assert first[0].headers["x-tollway-backend"] == "rules"
        finally:
            gateway.kill()

    try:
        run(main)
    finally:
        accurate.kill()
        accurate.wait()
        accurate.stdout.close()
