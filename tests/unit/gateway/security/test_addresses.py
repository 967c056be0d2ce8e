"""Link-local and metadata addresses in every spelling."""

import asyncio
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.backends.errors import ConnectFailed
from tollway.backends.http.factory import open_transport
from tollway.backends.types import Call
from tollway.gateway import settings
from tollway.gateway.security.addresses import check_backend_url, check_web_url, is_link_local
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring import backends as wired

LINK_LOCAL = [
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "https://169.254.169.254",
    "http://169.254.169.254:80/",
    "http://169.254.170.2/v2/credentials",  # AWS: tasks
    "http://169.254.170.23/v1/credentials",  # AWS: pods
    "http://169.254.0.1/",
    "http://169.254.255.255/",
    "http://2852039166/",  # one number
    "http://0xa9fea9fe/",
    "http://0xA9FEA9FE/",
    "http://025177524776/",
    "http://169.16689662/",  # two
    "http://169.254.43518/",  # three
    "http://0xa9.254.0251.0376/",
    "http://0251.0376.0251.0376/",
    "http://0xa9.0xfe.0xa9fe/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[FE80::A9FE:A9FE]:8080/",
    "http://[febf::1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[64:ff9b::169.254.169.254]/",  # NAT64
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",  # 6to4
    "http://[fd00:ec2::254]/",
    "http://[fd00:ec2:0::0:254]/",
    "http://[fd00:ec2::23]/",
    "http://[fd20:ce::254]/",
    "http://100.100.100.200/latest/meta-data/",
    "http://1684301000/",
    "http://[::ffff:100.100.100.200]/",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/",
    "http://metadata.google.internal/",
    "http://metadata.google.internal./",
    "http://METADATA.google.Internal:80/",
    "http://metadata.goog/",
]

NO_ADDRESS = [
    "http://a@169.254.169.254/",
    "http://127.0.0.1@169.254.169.254/",
    "http://127.0.0.1:80@169.254.169.254/",
    "http://127.0.0.1#@169.254.169.254/",
    "http://127.0.0.1?@169.254.169.254/",
    "http://127.0.0.1\\\\@169.254.169.254/",
    "http://127.0.0.1 169.254.169.254/",
    "http://１６９.254.169.254/",  # noqa: RUF001 - full-width digits
    "http://①⑥⑨.254.169.254/",
    "gopher://169.254.169.254/",
    "file:///etc/passwd",
    "//169.254.169.254/",
    "http:169.254.169.254",
]

FINE = ["http://127.0.0.1:9002", "http://10.0.0.1", "http://[::1]:80", "http://[::ffff:10.0.0.1]"]
FINE += ["http://models.internal", "http://169.253.0.1", "http://[2002:a00:1::1]", "http://[::]"]


def load(url: str) -> settings.Settings:
    text = two_backends(url, "http://127.0.0.1:1")
    return settings.parse(text, {})


@pytest.mark.parametrize("url", LINK_LOCAL)
def test_no_spelling_of_a_link_local_or_metadata_address_is_a_backends(url: str) -> None:
    with pytest.raises(ConfigError, match="link-local or metadata"):
        load(url)


@pytest.mark.parametrize("url", NO_ADDRESS)
def test_what_could_be_read_as_another_address_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="backends"):
        load(url)


@pytest.mark.parametrize("url", FINE)
def test_addresses_of_networks_of_ones_own_are_fine(url: str) -> None:
    assert load(url).backends[0].url == url


@pytest.mark.parametrize("http2", [False, True])
def test_a_name_that_leads_elsewhere_today_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch, http2: bool
) -> None:
    """DNS rebinding: the name led elsewhere when it was checked."""
    leads, heard = ["127.0.0.2"], []
    look_up = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        return look_up(leads[0] if host in ("models.test", b"models.test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = writer.get_extra_info("sockname")[0]
        if request := await reader.read(1000):
            heard.append((where, request[:4]))
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        first = await asyncio.start_server(serve, "127.0.0.2", 0)
        port = first.sockets[0].getsockname()[1]
        second = await asyncio.start_server(serve, "127.0.0.3", port)
        async with first, second:
            transport = open_transport(
                f"http://models.test:{port}", http2=http2, barred=lambda at: at == "127.0.0.3"
            )
            soon_s = asyncio.get_running_loop().time() + 10
            reply = await transport.send(Call(b"POST", b"/", [], b"{}"), soon_s)
            assert await reply.read(10) == b""
            leads[0] = "127.0.0.3"
            with pytest.raises(ConnectFailed, match=r"127\.0\.0\.3") as caught:
                await transport.send(Call(b"POST", b"/", [], b"{}"), soon_s)
            assert not caught.value.ran
            leads[0] = "127.0.0.2"  # and no slot was lost
            reply = await transport.send(Call(b"POST", b"/", [], b"{}"), soon_s)
            assert await reply.read(10) == b""
            await transport.aclose()

    asyncio.run(main())
    assert heard == [("127.0.0.2", b"POST")] * 2


@pytest.mark.integration
def test_a_gateway_asks_no_backend_whose_name_leads_to_where_nothing_may_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wired, "is_link_local", lambda at: at.startswith("127.") or at == "::1")

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            name = url.replace("127.0.0.1", "localhost")
            async with running(two_backends(name, name), tmp_path / "no") as tollway:
                reply = await tollway.infer()
                assert reply.status_code in (502, 503)
                assert reply.headers["x-tollway-cost-usd"] == "0.000000000"
            assert upstream.calls == 0
            meant = two_backends(name, name, backend="allow_link_local = true")
            async with running(meant, tmp_path / "yes") as tollway:
                assert (await tollway.infer()).status_code == 200
            assert upstream.calls == 1

    run(main)


def test_where_an_address_leads_is_what_counts() -> None:
    assert is_link_local("fe80::1%eth0")
    assert not is_link_local("127.0.0.1")
    assert not is_link_local("")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://user:pw@scaler.example.com/x", "user or password"),
        ("https://@scaler.example.com/x", "user or password"),
        ("https://h\u00e4.example/", "not ASCII"),
        ("https://x.example/a b", "percent-encode"),
        ("https://x.example/?a b", "percent-encode"),
        ("https://x y.example/", "percent-encode"),
        ("https://x.example/a\x00b", "percent-encode"),
        ("https://x.example/a\x7fb", "percent-encode"),
        ("https://x.example/\ud800", "percent-encode"),
        ("http://x..y/", "empty part"),
        ("http://./", "empty part"),
        (f"http://{'a' * 64}.example/", "63 characters"),
    ],
)
def test_a_web_address_that_nothing_can_be_sent_to_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_web_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/services/T0/B0/xyz?a=b%20c",
        "https://hooks.example.com./",
        "https://hooks.example.com/\u00e4",
        "https://hooks.example.com/x\n",
        "https://hooks.example.com/#a b",
        "HTTP://my_host:8080",
        f"http://{'a' * 63}.example/",
        "http://xn--h-zfa.example/",
        "http://[fe00::1%eth0]:9/",
    ],
)
def test_a_web_address_that_requests_reach_is_accepted(url: str) -> None:
    check_web_url(url)
    open_transport(urlunsplit((*urlsplit(url)[:2], "", "", "")))


def test_a_backends_host_can_be_looked_up() -> None:
    with pytest.raises(ValueError, match="empty part"):
        check_backend_url("http://x..y/v1")
