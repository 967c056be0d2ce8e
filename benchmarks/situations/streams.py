"""Situations of streams."""

import json
import time

from benchmarks.situations.client import Client, Reply
from benchmarks.situations.situation import (
    CHAT,
    REST_S,
    Situation,
    ask,
    chat,
    delta,
    same,
    text_of,
    usage_chunk,
)
from benchmarks.situations.upstream import (
    CHUNKED,
    END,
    HANG_UP,
    Asked,
    Part,
    Upstream,
    chunk,
    event,
    reply,
    stream,
)

HELLO = (delta({"role": "assistant", "content": "h\u00e9"}), delta({"content": "llo"}))
STOP = delta({}, "stop")
BIG = "data:image/png;base64," + "A" * 1_600_000
CALLS = tuple(
    delta({"tool_calls": [{"index": 0, "id": "c", "type": "function",
                           "function": {"name": "f", "arguments": part}}]})
    for part in ('{"x"', ": 1}")
)  # fmt: skip


def asked(client: Client, **more: object) -> Reply:
    """Return the reply to a streamed chat; raises unless it is a whole 200."""
    got = client.ask(CHAT, ask(stream=True, **more))
    assert got.status == 200, f"{got.status} {got.body[:150]!r}"
    assert got.whole, "the reply was cut"
    return got


def whole(client: Client, _: Upstream) -> None:
    """The text is complete, and no error is among the events."""
    for _turn in range(6):  # what one stream leaves behind must not shut out the next
        events = asked(client).events
        same(text_of(events), "h\u00e9llo")
        assert not any("error" in one for one in events)


def quiet(client: Client, _: Upstream) -> None:
    """No usage reaches a client that did not ask for it."""
    events = asked(client).events
    same(text_of(events), "h\u00e9llo")
    assert not any(one.get("usage") for one in events), "usage that nobody asked for"


def reported(client: Client, _: Upstream) -> None:
    """A client that asks for usage gets it."""
    events = asked(client, stream_options={"include_usage": True}).events
    found = [one["usage"] for one in events if one.get("usage")]
    same(found[-1]["total_tokens"], 15)


def timed(client: Client, _: Upstream) -> None:
    """Members beside the usage survive."""
    events = asked(client, stream_options={"include_usage": True}).events
    same([one["timings"] for one in events if one.get("timings")], [{"predicted_ms": 1.5}])


def image(client: Client, _: Upstream) -> None:
    assert BIG.encode() in asked(client).body, "the image was lost"


def called(client: Client, _: Upstream) -> None:
    parts = [
        call["function"]["arguments"]
        for one in asked(client).events
        for choice in one["choices"]
        for call in choice["delta"].get("tool_calls") or []
    ]
    same("".join(part for part in parts if part), '{"x": 1}')


def reasoned(client: Client, _: Upstream) -> None:
    assert b"hmm" in asked(client).body, "the reasoning was lost"


def unstreamed(client: Client, _: Upstream) -> None:
    """The text arrives, as a document or as a stream."""
    got = asked(client)
    if b"data:" in got.body:
        same(text_of(got.events), "h\u00e9llo")
    else:
        same(got.document["choices"][0]["message"]["content"], "h\u00e9llo")


def without_options(request: Asked) -> list[Part]:
    if "stream_options" in request.document:
        error = {"message": "Unknown parameter: 'stream_options'.", "param": "stream_options"}
        return reply({"error": error}, 400)
    return stream(*HELLO, STOP)


def cut(client: Client, _: Upstream) -> None:
    """A stream that breaks off does not look complete."""
    got = client.ask(CHAT, ask(stream=True))
    errors = [one for one in got.events if "error" in one]
    assert errors or not got.whole, "looked complete"
    assert b"[DONE]" not in got.body, "[DONE] after a cut"


def errs(client: Client, _: Upstream) -> None:
    """An error in the first event is seen as one: by the status or in the stream."""
    got = client.ask(CHAT, ask(stream=True))
    assert got.status >= 400 or b'"error"' in got.body, "no error was seen"
    assert b"overloaded today" in got.body, f"{got.body[:150]!r}"


def refused(client: Client, _: Upstream) -> None:
    got = client.ask(CHAT, ask(stream=True))
    time.sleep(REST_S)
    same(got.status, 429)
    same(got.headers.get("retry-after"), "1")


def left(client: Client, upstream: Upstream) -> None:
    """The upstream is hung up on within seconds of the client's leaving."""
    before = upstream.cut
    for n, _part in enumerate(client.parts(CHAT, ask(stream=True))):
        if n == 3:
            break
    until = time.monotonic() + 3
    while upstream.cut == before:
        assert time.monotonic() < until, "the upstream goes on"
        time.sleep(0.05)


def prompt(client: Client, _: Upstream) -> None:
    """The first event arrives before the upstream sends its second, a second later."""
    at = next(s for s, data in client.parts(CHAT, ask(stream=True)) if b"content" in data)
    assert at < 0.9, f"the first event came after {at:.1f} s"


def patient(client: Client, _: Upstream) -> None:
    """Ten silent seconds in a stream are no failure."""
    same(text_of(asked(client).events), "h\u00e9llo")


def commented(client: Client, _: Upstream) -> None:
    same(text_of(asked(client).events), "h\u00e9llo")


def typed_without(kind: str | None) -> list[Part]:
    body = b"".join(event(one) for one in (*HELLO, STOP)) + b"data: [DONE]\n\n"
    return reply(body, kind=kind)


def torn() -> list[Part]:
    """A stream in pieces that end within lines and characters."""
    raw = (event(json.dumps(HELLO[0], ensure_ascii=False).encode()) + event(HELLO[1]) + event(STOP)
           + b"data: [DONE]\n\n")  # fmt: skip
    at = raw.index("\u00e9".encode()) + 1
    pieces = [raw[:7], raw[7:at], raw[at : at + 90], raw[at + 90 :]]
    return [CHUNKED, *(part for one in pieces for part in (chunk(one), 0.02)), END]


def lines(ends: bytes) -> list[Part]:
    raw = b"".join(event(one) for one in (*HELLO, STOP)) + b"data: [DONE]\n\n"
    return [CHUNKED, chunk(raw.replace(b"\n", ends)), END]


NARROW = [event(one).replace(b"data: ", b"data:") for one in (*HELLO, STOP)]
PING = b": ping\n\n"
SLOW = stream(*(delta({"content": f"w{n} "}) for n in range(60)), STOP, pause_s=0.1)
BROKEN: list[Part] = [CHUNKED, *(chunk(event(one)) for one in HELLO), 0.1, HANG_UP]
ERROR = {"error": {"message": "overloaded today", "type": "overloaded", "code": 502}}

STREAMS = (
    Situation("a stream", lambda _: stream(*HELLO, STOP, usage_chunk()), whole),
    Situation("a stream without [DONE]",
              lambda _: stream(*HELLO, STOP, usage_chunk(), done=False), whole),
    Situation("a stream without a finish reason", lambda _: stream(*HELLO), whole),
    Situation("a stream of content type text/plain", lambda _: typed_without("text/plain"), whole),
    Situation("a stream without a content type", lambda _: typed_without(None), whole),
    Situation("a stream torn within lines and characters", lambda _: torn(), whole),
    Situation("a stream with CRLF", lambda _: lines(b"\r\n"), whole),
    Situation("`data:` without a space", lambda _: stream(*NARROW), whole),
    Situation("comments before and between the events",
              lambda _: stream(PING, PING, HELLO[0], PING, HELLO[1], STOP), commented),
    Situation("usage that the client did not ask for stays hidden",
              lambda r: stream(*HELLO, STOP, *([usage_chunk()] if "stream_options" in r.document
                                               else [])), quiet),
    Situation("usage that the client asked for",
              lambda _: stream(*HELLO, STOP, usage_chunk()), reported),
    Situation("llama.cpp's timings beside the usage",
              lambda _: stream(*HELLO, STOP, usage_chunk(timings={"predicted_ms": 1.5})), timed),
    Situation("an upstream that refuses `stream_options`", without_options, whole),
    Situation("an event of 1.6 MB",
              lambda _: stream(delta({"images": [{"image_url": {"url": BIG}}]}), STOP), image),
    Situation("tool calls in pieces",
              lambda _: stream(*CALLS, delta({}, "tool_calls")), called),
    Situation("reasoning in pieces",
              lambda _: stream(delta({"reasoning_content": "hmm"}), *HELLO, STOP), reasoned),
    Situation("the first event arrives at once",
              lambda _: stream(*HELLO, STOP, pause_s=1.0), prompt),
    Situation("ten silent seconds", lambda _: [*stream(HELLO[0])[:2], 10.0,
                                               *stream(HELLO[1], STOP)[1:]], patient),
    Situation("an error in the first event", lambda _: stream(ERROR), errs),
    Situation("an error after the first words", lambda _: stream(HELLO[0], ERROR, done=False),
              errs),
    Situation("429 in place of a stream",
              lambda _: reply({"error": {"message": "slow"}}, 429, retry_after="1"), refused),
    Situation("a stream that breaks off", lambda _: BROKEN, cut),
    Situation("a client that leaves", lambda _: SLOW, left),
    Situation("a whole reply in place of a stream", lambda _: reply(chat("h\u00e9llo")),
              unstreamed),
)  # fmt: skip
