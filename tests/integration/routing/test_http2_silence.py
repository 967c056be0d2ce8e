"""HTTP/2: a silent connection gets no more calls."""

import asyncio
import ssl
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.support.certificates import Authority
from tests.support.until import until
from tollway.backends.errors import DeadlineExceeded
from tollway.backends.http.factory import open_transport
from tollway.backends.types import Call

pytestmark = pytest.mark.integration


def test_a_dead_connection_is_left_and_what_it_carries_goes_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    chain = authority.sign("h2", year=2090)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*chain)
    context.set_alpn_protocols(["h2"])
    connections, asked, revived = 0, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, asked
        connections += 1
        first, served = connections == 1, 0
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        writer.write(http.data_to_send())
        while data := await reader.read(65_536):
            for event in http.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    asked += 1
                    served += 1
                    if first and served == 2:  # the first connection falls silent
                        await revived.wait()
                    http.send_headers(event.stream_id, [(":status", "200")])
                    http.send_data(event.stream_id, b"ok", end_stream=True)
            writer.write(http.data_to_send())
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listener:
            port = listener.sockets[0].getsockname()[1]
            trust = ssl.create_default_context(cafile=authority.cert)
            transport = open_transport(f"https://127.0.0.1:{port}", http2=True, tls=trust)

            async def ask(seconds: float) -> bytes:
                until_s = asyncio.get_running_loop().time() + seconds
                reply = await transport.send(Call(b"POST", b"/", [], b"{}"), until_s)
                return await reply.read(100)

            assert await ask(10) == b"ok"
            patient = asyncio.create_task(ask(20))
            await until(lambda: asked >= 2)
            with pytest.raises(DeadlineExceeded):
                await ask(0.2)
            assert [await ask(10) for _ in range(3)] == [b"ok"] * 3
            assert connections == 2
            revived.set()
            assert await patient == b"ok"
            await transport.aclose()

    asyncio.run(main())
