"""Overload: another backend, or a refusal at once with Retry-After."""

import asyncio
from pathlib import Path

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.until import until

TIGHT = "concurrency = 1\nqueue_s = 0.05\n"


def test_a_call_that_would_wait_too_long_goes_to_another_backend(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(hold=asyncio.Event()), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b, backend=TIGHT), tmp_path) as gateway:
                first = asyncio.create_task(gateway.infer())
                await until(lambda: cheap.calls)
                second = await gateway.infer()
                assert second.status_code == 200
                assert second.headers["x-tollway-backend"] == "dear"
                assert cheap.hold is not None
                cheap.hold.set()
                assert (await first).headers["x-tollway-backend"] == "cheap"
                told = await gateway.get(
                    f"/_tollway/decisions/{second.headers['x-tollway-decision']}"
                )
                assert [row["provenance"] for row in told["attempts"]] == ["void", "usage"]
                assert told["cost_nano"] == 1_000_000  # what was not called costs nothing
                metrics = (await gateway.client.get(gateway.url + "/metrics")).text
                assert 'tollway_backend_shed_total{backend="cheap"} 1.0' in metrics
                assert 'tollway_backend_up{backend="cheap",route="m"} 1.0' in metrics

    run(main)


def test_where_all_backends_are_full_a_503_says_when_to_come_back_and_nothing_is_charged(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        upstream = Upstream(hold=asyncio.Event())
        more = budget("cap", "1.0")
        async with serving(upstream) as a:
            toml = two_backends(a, a, backend=TIGHT, more=more)
            async with running(toml, tmp_path) as gateway:
                asked = [asyncio.create_task(gateway.infer()) for _ in range(2)]
                await until(lambda: upstream.calls >= 2)
                for _ in range(8):  # more failures than open a breaker: these are none
                    refused = await gateway.infer()
                    assert refused.status_code == 503
                    assert refused.headers["retry-after"] == "1"
                    assert refused.headers["x-tollway-reason"] == "overloaded"
                    assert refused.json()["type"] == "urn:tollway:problem:overloaded"
                assert upstream.hold is not None
                upstream.hold.set()
                assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
                assert (await gateway.infer()).status_code == 200
                (cap,) = (await gateway.get("/_tollway/budgets"))["budgets"]
                spent = 100_000 * upstream_calls(upstream, b"small") + 1_000_000 * (
                    upstream_calls(upstream, b"large")
                )
                assert cap["spent_nano"] == spent

    run(main)


def upstream_calls(upstream: Upstream, model: bytes) -> int:
    return sum(b"/%b/" % model in path for _, path, _, _ in upstream.requests)


def test_above_the_limit_of_requests_at_once_a_request_is_refused_unread(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(hold=asyncio.Event())
        async with serving(upstream) as a:
            toml = two_backends(a, a, server="allow_anonymous = true\nmax_in_flight = 2")
            async with running(toml, tmp_path) as gateway:
                asked = [asyncio.create_task(gateway.infer()) for _ in range(2)]
                await until(lambda: upstream.calls >= 2)
                refused = await gateway.client.post(
                    gateway.url + "/v2/models/m/infer", json=inference() | {"pad": "x" * 100_000}
                )
                assert refused.status_code == 503
                assert refused.headers["retry-after"] == "1"
                assert refused.json()["title"] == "Overloaded"
                assert (await gateway.client.get(gateway.url + "/livez")).status_code == 200
                assert upstream.hold is not None
                upstream.hold.set()
                await asyncio.gather(*asked)
                assert (await gateway.infer()).status_code == 200
                metrics = (await gateway.client.get(gateway.url + "/metrics")).text
                assert 'outcome="overloaded",route="",tenant=""} 1.0' in metrics

    run(main)
