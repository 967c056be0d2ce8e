"""Situations of chats that do not stream: their requests, replies and errors."""

import gzip
import time
import zlib
from typing import Any

from benchmarks.situations.client import Client
from benchmarks.situations.situation import CHAT, REST_S, USED, Situation, ask, chat, same
from benchmarks.situations.upstream import Asked, Part, Upstream, reply

BIG = 18_446_744_073_709_551_617  # above 2^64
IMAGE = "data:image/png;base64," + "A" * 3_000_000
THOUGHTS = {
    **USED,
    "completion_tokens": 16,
    "completion_tokens_details": {"reasoning_tokens": 16},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
NEW = {"x_new": {"a": [None, 1.5], "b": "c"}}


def replied(body: Any, *path: str | int, want: object, **request: Any) -> Situation:
    """Return the answer and the check of a reply whose member at `path` must be `want`."""

    def check(client: Client, _: Upstream) -> None:
        got = client.ask(CHAT, ask(**request))
        assert got.status == 200, f"{got.status} {got.body[:150]!r}"
        value = got.document
        for step in path:
            value = value[step]
        same(value, want)

    return Situation("", lambda _: reply(body), check)


def named(name: str, one: Situation) -> Situation:
    return Situation(name, one.answer, one.check)


def sent(name: str, body: bytes, *wanted: bytes, **headers: str) -> Situation:
    """Return a situation whose request must reach the upstream with these bytes in it."""

    def check(client: Client, upstream: Upstream) -> None:
        got = client.ask(CHAT, body, **headers)
        assert got.status == 200, f"{got.status} {got.body[:150]!r}"
        seen = upstream.asked[-1].body
        for one in wanted:
            assert one in seen or one in seen.replace(b": ", b":"), f"sent {seen[60:200]!r}"

    return Situation(name, lambda _: reply(chat()), check)


def spoken(name: str, content: str, want: str) -> Situation:
    """Return a situation whose message must reach the upstream, however it is escaped."""

    def check(client: Client, upstream: Upstream) -> None:
        got = client.ask(CHAT, written("", content))
        assert got.status == 200, f"{got.status} {got.body[:150]!r}"
        same(upstream.asked[-1].document["messages"][0]["content"], want)

    return Situation(name, lambda _: reply(chat()), check)


def written(more: str, content: str = "q") -> bytes:
    """Return a request's exact bytes, with `more` members."""
    messages = f'[{{"role":"user","content":"{content}"}}]'
    return f'{{"model":"gpt-4o-mini","messages":{messages}{more}}}'.encode()


def zstd(data: bytes) -> bytes:
    """Return a zstd frame of one raw block (RFC 8878, 3.1.1)."""
    assert len(data) < 256
    block = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) + block + data


def refused(
    status: int, want: int | None = None, kept: bytes = b"upstream says", **headers: str
) -> Situation:
    """Return a situation of an error: its status, its message and its header fields get through."""
    error = {"message": "upstream says no", "type": "some_error", "code": "c", "param": "messages"}
    body = {"error": error}

    def check(client: Client, _: Upstream) -> None:
        got = client.ask(CHAT, ask())
        if status in (429, 529):
            time.sleep(REST_S)
        same(got.status, want or status)
        assert kept in got.body, f"{got.body[:150]!r}"
        for name, value in headers.items():
            same(got.headers.get(name.replace("_", "-")), value)

    return Situation("", lambda _: reply(body, status, **headers), check)


def by_content(asked: Asked) -> list[Part]:
    """Answer as the message says: a status, or all is well."""
    content = asked.document["messages"][0]["content"]
    if content == "well":
        return reply(chat())
    return reply({"error": {"message": f"upstream says {content}"}}, int(content))


def others_are_served(status: int, times: int) -> Situation:
    """Return a situation in which one client's failures must not shut out another client."""

    def check(client: Client, _: Upstream) -> None:
        for _ in range(times):
            client.ask(CHAT, ask(str(status)))
        same(client.ask(CHAT, ask("well")).status, 200)

    return Situation("", by_content, check)


def many_choices() -> dict[str, Any]:
    first, second = chat(""), chat("two")["choices"][0]
    return {**first, "choices": [first["choices"][0], {**second, "index": 1}]}


def coded(name: str, pack: Any) -> Situation:
    def check(client: Client, _: Upstream) -> None:
        got = client.ask(CHAT, ask(), accept_encoding=name)
        body = got.body
        if got.headers.get("content-encoding") == name:
            body = gzip.decompress(body) if name == "gzip" else zlib.decompress(body)
        assert b'"hi"' in body, f"{got.status} {got.body[:60]!r}"

    return Situation(
        f"a reply in {name}", lambda _: reply(pack(_json()), content_encoding=name), check
    )


def unasked_coding(client: Client, _: Upstream) -> None:
    got = client.ask(CHAT, ask())  # without Accept-Encoding
    assert got.status == 200, f"{got.status} {got.body[:150]!r}"
    body = gzip.decompress(got.body) if got.headers.get("content-encoding") else got.body
    assert b'"hi"' in body


def _json() -> bytes:
    return reply(chat())[0].partition(b"\r\n\r\n")[2]  # type: ignore[union-attr]


HTML = b"<html>502 Bad Gateway</html>"


def html_error(client: Client, _: Upstream) -> None:
    got = client.ask(CHAT, ask())
    assert got.status >= 500 and b"<html>502" not in got.body[:5], f"{got.status} {got.body[:80]!r}"


def request_id(client: Client, _: Upstream) -> None:
    got = client.ask(CHAT, ask())
    assert "req_9" in got.headers.values(), f"{sorted(got.headers)}"


REPLY_CHATS = (
    named("an empty answer at `finish_reason: length`, all thoughts",
          replied(chat("", "length", usage=THOUGHTS), "choices", 0, "finish_reason",
                  want="length", max_completion_tokens=16)),
    named("an empty answer at `finish_reason: stop`",
          replied(chat(""), "choices", 0, "message", "content", want="")),
    named("tool calls alone",
          replied(chat(None, "tool_calls", message={"tool_calls": [CALL]}),
                  "choices", 0, "message", "tool_calls", want=[CALL])),
    named("reasoning of the message is kept",
          replied(chat("hi", message={"reasoning_content": "hmm"}),
                  "choices", 0, "message", "reasoning_content", want="hmm")),
    named("`n = 2` with an empty first choice",
          replied(many_choices(), "choices", 1, "message", "content", want="two", n=2)),
    named("an unknown finish reason",
          replied(chat("hi", "model_context_window_exceeded"), "choices", 0, "finish_reason",
                  want="model_context_window_exceeded")),
    named("unknown members of the reply are kept",
          replied(chat(**NEW), "x_new", want=NEW["x_new"])),
    named("an integer above 2^64 in the reply", replied(chat(x_seed=BIG), "x_seed", want=BIG)),
    named("a lone surrogate in the reply",
          replied(chat("half \ud83d"), "choices", 0, "message", "content", want="half \ud83d")),
    named("usage without total_tokens",
          replied(chat(usage={"prompt_tokens": 10, "completion_tokens": 5}),
                  "choices", 0, "message", "content", want="hi")),
    named("no usage at all",
          replied(chat(usage=None), "choices", 0, "message", "content", want="hi")),
    named("usage with details that are null",
          replied(chat(usage={**USED, "prompt_tokens_details": None}),
                  "choices", 0, "message", "content", want="hi")),
    named("llama.cpp's timings in the reply",
          replied(chat(timings={"predicted_ms": 1.5}), "timings", want={"predicted_ms": 1.5})),
    named("an image of 3 MB in the reply",
          replied(chat("", message={"images": [{"image_url": {"url": IMAGE}}]}),
                  "choices", 0, "message", "images", want=[{"image_url": {"url": IMAGE}}])),
    coded("gzip", gzip.compress),
    coded("deflate", zlib.compress),
    Situation("a reply in gzip that nobody asked for",
              lambda _: reply(gzip.compress(_json()), content_encoding="gzip"), unasked_coding),
    Situation("the upstream's request id comes back",
              lambda _: reply(chat(), x_request_id="req_9"), request_id),
)  # fmt: skip

REQUEST_CHATS = (
    sent("an unknown field of the request", written(',"x_new":{"a":[null,1.5]}'), b'"x_new"'),
    sent("a null field of the request", written(',"stop":null,"temperature":0'),
         b'"temperature":0'),
    sent("an integer above 2^64 in a tool's schema",
         written(f',"tools":[{{"type":"function","function":{{"name":"f","parameters":'
                 f'{{"type":"object","properties":{{"x":{{"type":"integer","maximum":{BIG}'
                 f'}}}}}}}}}}]'), b"%d" % BIG),
    sent("an integer above 2^53 in `seed`", written(',"seed":9007199254740993'),
         b"9007199254740993"),
    sent("a decimal of 20 digits", written(',"temperature":0.12345678901234567890'),
         b"0.12345678901234567890"),
    spoken("text outside ASCII", "h\u00e9llo \u5317\u4eac", "h\u00e9llo \u5317\u4eac"),
    spoken("an escaped pair of surrogates", "\\ud83d\\ude00", "\U0001f600"),
    sent("an image of 3 MB in the request",
         written("", "x").replace(b'"x"', b'[{"type":"image_url","image_url":{"url":"%b"}}]'
                                  % IMAGE.encode()), IMAGE.encode()),
    sent("a request in gzip", gzip.compress(written("")), b"gpt-4o-mini", content_encoding="gzip"),
    sent("a request in zstd", zstd(written("")), b"gpt-4o-mini", content_encoding="zstd"),
)  # fmt: skip

ERRORS = (
    named("429 with its Retry-After", refused(429, retry_after="1")),
    named("400: its message, its code", refused(400, kept=b"messages")),
    named("404 of the upstream: its message", refused(404)),
    named("413 of the upstream", refused(413)),
    named("422 of the upstream", refused(422)),
    named("500: its message", refused(500)),
    named("529 (overloaded): its message", refused(529)),
    Situation("502 with a page of HTML", lambda _: reply(HTML, 502, "text/html"), html_error),
    named("ten 400s of one client, then another's request", others_are_served(400, 10)),
    named("five 500s of one client, then another's request", others_are_served(500, 5)),
)
