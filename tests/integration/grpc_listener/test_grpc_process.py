"""The listener for gRPC in whole processes: several workers, TLS, a reload, and the end."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.certificates import Authority
from tests.support.configs import two_backends
from tests.support.harness import run, serving
from tests.support.oip_echo import Echo
from tests.support.process import Process
from tests.support.until import until

pytestmark = pytest.mark.integration

# Each channel has its own connection, which any worker may get.
OWN = [("grpc.use_local_subchannel_pool", 1)]


@asynccontextmanager
async def process(
    folder: Path, model: Echo, *, workers: int = 1, server: str = ""
) -> AsyncIterator[tuple[Process, str]]:
    """Run `tollway serve`; yield it and the address for gRPC, on a port that it chose itself."""
    async with serving(model) as url:
        file, log = folder / "tollway.toml", folder / "log"
        server = f'allow_anonymous = true\nlisten = "127.0.0.1:0"\n{server}'
        grpc_table = '[grpc]\nlisten = "127.0.0.1:0"\n'
        text = two_backends(url, url, server=server, more=grpc_table, ledger="sqlite:///tollway.db")
        file.write_text(text)
        gateway = Process(file, "--workers", str(workers))
        try:
            await until(lambda: "gRPC: " in log.read_text())
            yield gateway, log.read_text().partition("gRPC: ")[2].split()[0]
        finally:
            gateway.stop()


def message() -> Any:
    request = service_pb2.ModelInferRequest(model_name="m")
    made = request.inputs.add(name="x", datatype="INT64", shape=[1])
    made.contents.int64_contents.append(7)
    return request


async def worker_of(channel: Any) -> str:
    """Ask for an inference; return the journal's segment of its decision: a worker has its own."""
    async with channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message())
        await call
        told = dict(await call.trailing_metadata())
    return str(told["x-tollway-decision"]).partition(".")[0]


def test_workers_share_the_port_and_finish_calls_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        model = Echo()
        async with process(tmp_path, model, workers=2) as (gateway, address):
            seen: set[str] = set()

            async def both_asked() -> bool:
                seen.add(await worker_of(grpc.aio.insecure_channel(address, OWN)))
                return len(seen) == 2

            await until(both_asked)
            model.hold = asyncio.Event()
            last = asyncio.create_task(worker_of(grpc.aio.insecure_channel(address, OWN)))
            before = len(model.documents)
            await until(lambda: len(model.documents) > before)
            gateway.tell(signal.SIGTERM)
            await until(lambda: refuses(address))
            model.hold.set()
            assert await last in seen
            assert await asyncio.to_thread(gateway.wait) == 0

    run(main)


async def refuses(address: str) -> bool:
    """Whether nobody listens any more."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.close()
    return False


def test_mutual_tls_works_and_a_renewed_certificate_is_served(tmp_path: Path) -> None:
    async def main() -> None:
        server, clients = Authority(tmp_path / "server"), Authority(tmp_path / "clients")
        cert, key = server.sign("own", year=2090)
        friend = clients.sign("friend", year=2090)
        tls = f'tls = {{ cert = "{cert}", key = "{key}", client_ca = "{clients.cert}" }}'

        async def name_of(peer_files: tuple[Path, Path] | None, address: str) -> Any:
            pair = [path.read_bytes() for path in peer_files] if peer_files else [None, None]
            credentials = grpc.ssl_channel_credentials(server.cert.read_bytes(), pair[1], pair[0])
            async with grpc.aio.secure_channel(address, credentials, OWN) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                return (await stub.ModelInfer(message(), timeout=20)).model_name

        async with process(tmp_path, Echo(), server=tls) as (gateway, address):
            assert await name_of(friend, address) == "m"
            with pytest.raises(grpc.aio.AioRpcError):
                await name_of(None, address)
            for old, new in zip((cert, key), server.sign("renewed", year=2091), strict=True):
                new.replace(old)
            assert await served_name(address, server, friend) == "own"
            gateway.tell(signal.SIGHUP)

            async def is_renewed() -> bool:
                return await served_name(address, server, friend) == "renewed"

            await until(is_renewed)
            assert await asyncio.to_thread(gateway.end, signal.SIGTERM) == 0

    run(main)


async def served_name(address: str, server: Authority, friend: tuple[Path, Path]) -> str:
    """Return the name in the certificate that a new connection gets."""

    context = ssl.create_default_context(cafile=server.cert)
    context.load_cert_chain(*friend)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    subject = dict(pair[0] for pair in writer.get_extra_info("peercert")["subject"])
    writer.close()
    return subject["commonName"]
