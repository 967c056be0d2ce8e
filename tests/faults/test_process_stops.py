"""A gateway that is stopped with streams open, and gateways that are replaced under load."""

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
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
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
CONFIG = """
[server]
allow_anonymous = true
drain_s = 20
listen = "{listen}"

[ledger]
url = "sqlite:///tollway.db"

[[backends]]
name = "one"
kind = "gpu"
protocol = "openai"
url = "{one}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["one"]

[[budgets]]
name = "all"
limit_usd = 1.0
"""


def journalled(folder: Path, kind: str) -> Iterable[dict[str, Any]]:
    found = segments(folder / ".tollway" / "journal")
    return [row for path in found for row in rows(path) if row["kind"] == kind]


def test_told_to_stop_streams_come_to_their_end_and_are_settled(tmp_path: Path) -> None:
    async def main() -> None:
        parrot = Parrot(hold=asyncio.Event())
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(parrot) as a:
            file = tmp_path / "tollway.toml"
            file.write_text(CONFIG.format(one=a, listen=url.removeprefix("http://")))
            process = Process(file)
            try:
                async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
                    await process.ready(url, http)

                    async def streamed() -> str:
                        path = url + "/v1/chat/completions"
                        async with http.stream("POST", path, json=ASK) as reply:
                            return (await reply.aread()).decode()

                    under_way = [asyncio.create_task(streamed()) for _ in range(STREAMS)]
                    await until(lambda: parrot.calls == STREAMS)
                    await parrot.begun.wait()
                    process.tell(signal.SIGTERM)
                    await refused(url)
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


async def refused(url: str) -> None:
    """Wait until no new connection is taken."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as http:
                    await http.get(url + "/livez")
            except httpx.TransportError:
                return
            await asyncio.sleep(0.01)


def test_a_worker_that_is_killed_takes_its_own_streams_with_it_and_no_others(
    tmp_path: Path,
) -> None:
    """Theirs are settled by what was used; its own are charged as they were reserved."""

    async def main() -> None:
        parrot = Parrot(hold=asyncio.Event())
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(parrot) as a:
            file = tmp_path / "tollway.toml"
            text = CONFIG.format(one=a, listen=url.removeprefix("http://"))
            file.write_text(text.replace("[server]", "[server]\nworkers = 2"))
            process = Process(file)
            try:
                async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
                    await process.ready(url, http)
                    await until(lambda: len(process.workers) == 2)

                    async def streamed() -> str:
                        async with (
                            httpx.AsyncClient(timeout=20, trust_env=False) as own,
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

                    async with asyncio.timeout(20):
                        while True:
                            (cap,) = (await http.get(url + "/_tollway/budgets")).json()["budgets"]
                            if cap["held_nano"] == 0:
                                break
                            await asyncio.sleep(0.05)
                assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
            finally:
                process.stop()
        ends = [*journalled(tmp_path, "settlement")]
        assert len(ends) == len(whole)
        assert cap["unaccounted_nano"] > 0
        settled_nano = sum(end["cost_nano"] for end in ends)
        assert cap["spent_nano"] - cap["unaccounted_nano"] == settled_nano

    run(main)


def test_who_does_not_let_go_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    """A backend that never answers, and clients that say half of a request, or nothing."""

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


def test_a_client_that_takes_nothing_of_its_stream_does_not_keep_it_from_stopping(
    tmp_path: Path,
) -> None:
    """Its buffers are full, and the gateway waits for it to read."""

    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(Parrot()) as a:
            file = tmp_path / "tollway.toml"
            text = CONFIG.format(one=a, listen=url.removeprefix("http://"))
            file.write_text(
                text.replace("drain_s = 20", "drain_s = 1").replace("usd = 1.0", "usd = 1000.0")
            )
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
    """Two on one ledger: behind what asks whether they are ready, with a grace, nothing is ever
    refused or cut; else a client that finds one gone asks the other.
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
                """Ask now and then whether one may be sent requests, as a balancer does."""
                while not over.is_set():
                    async with httpx.AsyncClient(trust_env=False) as http:
                        try:
                            reply = await http.get(urls[n] + "/readyz")
                            ready[n] = reply.status_code == 200
                        except httpx.TransportError:
                            ready[n] = False
                    await asyncio.sleep(0.02)

            async def send(http: httpx.AsyncClient, n: int) -> None:
                """Send one request to whoever is there; it must be answered."""
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
                async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
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
