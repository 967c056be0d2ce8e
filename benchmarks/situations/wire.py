"""Situations of HTTP itself."""

import json

from benchmarks.situations.client import Client
from benchmarks.situations.situation import CHAT, Situation, ask, chat, delta, same, usage_chunk
from benchmarks.situations.upstream import Asked, Part, Upstream, chunk, reply, stream

BODY = json.dumps(ask()).encode()
STREAM = json.dumps(ask(stream=True)).encode()
TYPE = "Content-Type: application/json\n"


def answer(asked: Asked) -> list[Part]:
    if b'"stream"' in asked.body:
        return stream(delta({"content": "hi"}), delta({}, "stop"), usage_chunk(), pause_s=0.02)
    return reply(chat())


def old_client(client: Client, _: Upstream) -> None:
    got = client.raw(f"POST {CHAT} HTTP/1.0\nHost: x\n{TYPE}Content-Length: {len(BODY)}\n", BODY)
    assert b" 200 " in got[:20] and got.rstrip().endswith(b"}"), f"{got[:80]!r}"


def old_stream(client: Client, _: Upstream) -> None:
    head = f"POST {CHAT} HTTP/1.0\nHost: x\n{TYPE}Content-Length: {len(STREAM)}\n"
    got = client.raw(head, STREAM)
    assert b" 200 " in got[:20], f"{got[:80]!r}"
    assert b"transfer-encoding" not in got.lower(), "chunks to an HTTP/1.0 client"
    assert got.rstrip().endswith(b"[DONE]"), f"{got[-60:]!r}"


def expects(client: Client, _: Upstream) -> None:
    head = (f"POST {CHAT} HTTP/1.1\nHost: x\n{TYPE}Expect: 100-continue\nConnection: close\n"
            f"Content-Length: {len(BODY)}\n")  # fmt: skip
    got = client.raw(head, b"", later=BODY)
    assert got.startswith(b"HTTP/1.1 100") and b" 200 " in got[:80], f"{got[:80]!r}"


def in_chunks(client: Client, _: Upstream) -> None:
    head = f"POST {CHAT} HTTP/1.1\nHost: x\n{TYPE}Connection: close\nTransfer-Encoding: chunked\n"
    got = client.raw(head, chunk(BODY[:20]) + chunk(BODY[20:]) + b"0\r\n\r\n")
    assert b" 200 " in got[:20], f"{got[:80]!r}"


def at(path: str, name: str) -> Situation:
    def check(client: Client, _: Upstream) -> None:
        got = client.ask(path, ask())
        assert got.status == 200 and b'"hi"' in got.body, f"{got.status} {got.body[:80]!r}"

    return Situation(name, answer, check)


def preflight(client: Client, _: Upstream) -> None:
    got = client.ask(
        CHAT,
        method="OPTIONS",
        origin="http://ui.example",
        access_control_request_method="POST",
        access_control_request_headers="authorization",
    )
    assert got.status < 300 and got.headers.get("access-control-allow-origin"), f"{got.status}"


def passed(client: Client, upstream: Upstream) -> None:
    """Fields of the SDKs reach the upstream, the client's key does not."""
    got = client.ask(CHAT, ask(), openai_organization="org", x_stainless_lang="python")
    same(got.status, 200)
    seen = upstream.asked[-1].headers
    same(seen.get("openai-organization"), "org")


def keyless(client: Client, upstream: Upstream) -> None:
    """What the gateway is asked with stays at the gateway."""
    got = client.ask(CHAT, ask(), cookie="session=secret")
    same(got.status, 200)
    assert "secret" not in str(upstream.asked[-1].headers), "a cookie reached the upstream"


def many(client: Client, _: Upstream) -> None:
    for _turn in range(20):
        same(client.ask(CHAT, ask()).status, 200)


def not_json(client: Client, upstream: Upstream) -> None:
    """A body that is no JSON is the client's mistake."""
    before = len(upstream.asked)
    got = client.ask(CHAT, b'{"model": "gpt-4o-mini", "messages": [')
    assert 400 <= got.status < 500, f"{got.status} {got.body[:80]!r}"
    same(len(upstream.asked), before)


WIRE = (
    Situation("an HTTP/1.0 client", answer, old_client),
    Situation("a stream to an HTTP/1.0 client", answer, old_stream),
    Situation("Expect: 100-continue", answer, expects),
    Situation("a request in chunks", answer, in_chunks),
    at(CHAT + "/", "a slash at the end of the path"),
    at("/chat/completions", "a path without /v1"),
    at(CHAT + "?api-version=2024-10-21", "a query"),
    Situation("a preflight of CORS", answer, preflight),
    Situation("header fields of SDKs reach the upstream", answer, passed),
    Situation("cookies do not", answer, keyless),
    Situation("JSON that is cut", answer, not_json),
    Situation("twenty requests, one after the other", answer, many),
)
