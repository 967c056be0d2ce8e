"""Stopping a gateway with open streams, and replacing gateways under load."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.faults.stand import position, standing
from tests.support.configs import budget, one_model, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.parrot import Parrot
from tests.support.process import Process, free_port
from tests.support.redis_server import redis_server
from tests.support.until import until
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows

pytestmark = pytest.mark.integration

STREAMS = 20
ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello there"}]}
LONG = "word " * 50_000  # a stream of ten megabytes


def configuration(
    one: str, url: str, drain_s: int = 20, limit_usd: str = "1.0", **server: int
) -> str:
    """Return a gateway at a URL over one model, with a budget."""
    keys = {"drain_s": drain_s, **server}
    lines = [f'listen = "{url.removeprefix("http://")}"', *(f"{k} = {v}" for k, v in keys.items())]
    budgets = budget("all", limit_usd)
    return one_model(one, server="\n".join(lines), ledger="sqlite:///tollway.db", more=budgets)


def journalled(folder: Path, kind: str) -> Iterable[dict[str, Any]]:
    found = segments(folder / ".tollway" / "journal")
    return [row for path in found for row in rows(path) if row["kind"] == kind]


def test_streams_are_finished_and_settled_after_sigterm(tmp_path: Path) -> None:
    async def main() -> None:
        parrot = Parrot(hold=asyncio.Event())
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(parrot) as a:
            file = tmp_path / "tollway.toml"
            file.write_text(configuration(a, url))
            process = Process(file)
            try:
                async with http_client(timeout=20) as http:
                    await process.ready(url, http)

                    async def streamed() -> str:
                        path = url + "/v1/chat/completions"
                        async with http.stream("POST", path, json=ASK) as reply:
                            return (await reply.aread()).decode()

                    under_way = [asyncio.create_task(streamed()) for _ in range(STREAMS)]
                    await until(lambda: parrot.calls == STREAMS)
                    await parrot.begun.wait()
                    process.tell(signal.SIGTERM)
                    await until(lambda: refuses(url))
                    assert parrot.hold is not None
                    parrot.hold.set()
                    told = await asyncio.gather(*under_way)
                assert all(text.endswith("data: [DONE]\n\n") for text in told)
                assert await asyncio.to_thread(process.wait) == 0
            finally:
                process.stop()
        ends = journalled(tmp_path, "settlement")
        assert len([*ends]) == STREAMS
        assert {(end["provenance"], end["error"]) for end in ends} == {("usage", "")}

    run(main)


async def refuses(url: str) -> bool:
    """Return whether no new connection is taken."""
    async with http_client() as http:
        try:
            await http.get(url + "/livez")
        except httpx.TransportError:
            return True
        return False


def test_a_worker_that_is_killed_takes_its_own_streams_with_it_and_no_others(
    tmp_path: Path,
) -> None:
    """Other workers' streams are settled by usage; its own are charged as reserved."""

    async def main() -> None:
        parrot = Parrot(hold=asyncio.Event())
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(parrot) as a:
            file = tmp_path / "tollway.toml"
            file.write_text(configuration(a, url, workers=2))
            process = Process(file)
            try:
                async with http_client(timeout=20) as http:
                    await process.ready(url, http)
                    await until(lambda: len(process.workers) == 2)

                    async def streamed() -> str:
                        async with (
                            http_client(timeout=20) as own,
                            own.stream("POST", url + "/v1/chat/completions", json=ASK) as reply,
                        ):
                            return (await reply.aread()).decode()

                    under_way = [asyncio.create_task(streamed()) for _ in range(STREAMS)]
                    await until(lambda: parrot.calls == STREAMS)
                    victim = process.workers[0]
                    os.kill(victim, signal.SIGKILL)
                    await until(lambda: victim not in process.workers and len(process.workers) == 2)
                    assert parrot.hold is not None
                    parrot.hold.set()
                    told = await asyncio.gather(*under_way, return_exceptions=True)
                    whole = [one for one in told if isinstance(one, str)]
                    cut = [one for one in told if isinstance(one, httpx.TransportError)]
                    assert len(whole) + len(cut) == STREAMS
                    assert whole
                    assert cut
                    assert all(text.endswith("data: [DONE]\n\n") for text in whole)

                    async def settled() -> dict[str, Any] | None:
                        (cap,) = (await http.get(url + "/_tollway/budgets")).json()["budgets"]
                        return cap if cap["held_nano"] == 0 else None

                    cap = await until(settled)
                assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
            finally:
                process.stop()
        ends = [*journalled(tmp_path, "settlement")]
        assert len(ends) == len(whole)
        assert cap["unaccounted_nano"] > 0
        settled_nano = sum(end["cost_nano"] for end in ends)
        assert cap["spent_nano"] - cap["unaccounted_nano"] == settled_nano

    run(main)


def test_a_backend_or_client_that_does_not_finish_does_not_prevent_stopping(tmp_path: Path) -> None:
    """A backend that never answers, and clients that send half of a request, or nothing."""

    async def main() -> None:
        stuck = Upstream(hold=asyncio.Event())
        async with serving(stuck) as a:
            server = "drain_s = 1"
            async with standing(tmp_path / "g", a, a, server=server) as stand:
                host, _, port = stand.url.removeprefix("http://").partition(":")
                held = []
                for said in (b"", b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\n"):
                    _, writer = await asyncio.open_connection(host, int(port))
                    writer.write(said)
                    held.append(writer)
                asked = asyncio.create_task(stand.ask(4))
                await until(lambda: stuck.calls == 4)
                assert (
                    await asyncio.to_thread(stand.process.end, signal.SIGTERM) == 0
                )  # in time, or it raises
                await asyncio.gather(asked, return_exceptions=True)
                # What was asked and may have run is paid for.
                assert stand.journal_nano == 4 * 100_000
                for writer in held:
                    writer.close()
                assert stuck.hold is not None
                stuck.hold.set()

    run(main)


def test_a_client_that_does_not_read_its_stream_does_not_prevent_stopping(
    tmp_path: Path,
) -> None:
    """Its buffers are full, and the gateway waits for it to read."""

    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(Parrot()) as a:
            file = tmp_path / "tollway.toml"
            file.write_text(configuration(a, url, drain_s=1, limit_usd="1000.0"))
            process = Process(file)
            try:
                await process.ready(url)
                body = orjson.dumps({**ASK, "messages": [{"role": "user", "content": LONG}]})
                head = (
                    f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}"
                )
                stuck = []
                for _ in range(4):
                    one = socket.socket()
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    one.connect(("127.0.0.1", int(url.rpartition(":")[2])))
                    one.sendall(head.encode() + b"\r\n\r\n" + body)
                    assert await asyncio.to_thread(one.recv, 12) == b"HTTP/1.1 200"
                    stuck.append(one)
                assert (
                    await asyncio.to_thread(process.end, signal.SIGTERM) == 0
                )  # in time, or it raises
                for one in stuck:
                    one.close()
            finally:
                process.stop()
        ends = [*journalled(tmp_path, "settlement")]
        assert len(ends) == 4
        assert all(end["cost_nano"] > 0 and end["error"] for end in ends)

    run(main)


@pytest.mark.parametrize(
    ("balanced", "ledger"),
    [(True, "SQLite"), (False, "SQLite"), (True, "Redis")],
    ids=["balancer", "clients ask again", "balancer, Redis"],
)
def test_gateways_are_replaced_one_by_one_and_no_request_fails(
    tmp_path: Path, balanced: bool, ledger: str
) -> None:
    """Two on one ledger: with a balancer that checks readiness and a grace period nothing is
    refused or cut; otherwise a client that finds one gone asks the other.
    """
    if ledger == "Redis":
        with redis_server(tmp_path / "redis") as redis:
            replace_one_by_one(tmp_path, balanced=balanced, ledger=redis.url)
            left = asyncio.run(position(redis.url))
            assert left.leased_nano == left.unaccounted_nano == 0
    else:
        shared = f"sqlite:///{tmp_path}/shared.db"
        replace_one_by_one(tmp_path, balanced=balanced, ledger=shared)


def replace_one_by_one(tmp_path: Path, *, balanced: bool, ledger: str) -> None:
    """Replace two gateways under load."""

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            urls, files = [], []
            for n in range(2):
                url = f"http://127.0.0.1:{free_port()}"
                server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
                server += "\ngrace_s = 1" * balanced
                (folder := tmp_path / str(n)).mkdir()
                files.append(folder / "tollway.toml")
                urls.append(url)
                more = budget("cap", "10.0")
                files[-1].write_text(two_backends(a, a, server=server, more=more, ledger=ledger))
            gateways = [Process(file) for file in files]
            over, answered, ready = asyncio.Event(), 0, [True, True]

            async def watch(n: int) -> None:
                """Check readiness at intervals, as a load balancer does."""
                while not over.is_set():
                    async with http_client() as http:
                        try:
                            reply = await http.get(urls[n] + "/readyz")
                            ready[n] = reply.status_code == 200
                        except httpx.TransportError:
                            ready[n] = False
                    await asyncio.sleep(0.02)

            async def send(http: httpx.AsyncClient, n: int) -> None:
                """Send one request to a gateway that accepts it; it must be answered."""
                nonlocal answered
                path = urls[n if ready[n] else 1 - n] + "/v2/models/m/infer"
                reply = await http.post(path, json=inference())
                assert reply.status_code == 200
                answered += 1

            async def client(http: httpx.AsyncClient, n: int) -> None:
                while not over.is_set():
                    if balanced:
                        await send(http, n % 2)
                        continue
                    for attempt in range(20):
                        with contextlib.suppress(  # refused, or closed as it was about to be used
                            httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError
                        ):
                            await send(http, (n + attempt) % 2)
                            break
                    else:
                        raise AssertionError("nobody answered")

            try:
                async with http_client(timeout=20) as http:
                    for url, gateway in zip(urls, gateways, strict=True):
                        await gateway.ready(url, http)
                    async with asyncio.TaskGroup() as group:
                        for n in range(4):
                            group.create_task(client(http, n))
                        for n in range(2 * balanced):
                            group.create_task(watch(n))
                        for n in (0, 1):
                            seen = answered
                            await until(lambda seen=seen: answered > seen + 50)  # type: ignore[misc]
                            assert await asyncio.to_thread(gateways[n].end, signal.SIGTERM) == 0
                            gateways[n] = Process(files[n])
                            await gateways[n].ready(urls[n], http)
                            await until(lambda n=n: ready[n])  # type: ignore[misc]
                        over.set()
                    (cap,) = (await http.get(urls[0] + "/_tollway/budgets")).json()["budgets"]
                assert upstream.calls == answered  # nothing that was cut had been heard
                assert cap["spent_nano"] + cap["held_nano"] <= cap["limit_nano"]
                for gateway in gateways:
                    assert gateway.end(signal.SIGTERM) == 0
                nano = sum(
                    row["cost_nano"]
                    for n in range(2)
                    for row in journalled(tmp_path / str(n), "attempt")
                )
                assert nano == answered * 100_000
            finally:
                for gateway in gateways:
                    gateway.stop()

    run(main)
