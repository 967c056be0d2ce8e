"""Chunks that differ in their text only are read by a template, with the same result."""

import json
from random import Random
from typing import Any

import pytest

from tollway.backends.protocols.openai.chunk_template import enclosing
from tollway.backends.protocols.openai.stream import DONE, Completion

# As JSON writes them, or as a broken server does.
TEXTS = [
    b"seven", b" ", b"", b"a\\nb", b'say \\"hi\\"', b"back\\\\", b"end\\", b'cut"off', b'","x":"y',
    b'"', b"tab\t", b"\x00", b"\xff", "über".encode(), "\U0001f600".encode(),
    b"\\u00e9", b"\\ud83d", b'usage', b'\\"usage\\": {}', b"[DONE]", b"data: x", b"{}",
    b"long " * 5000,
]  # fmt: skip
KINDS: dict[str, bytes] = {
    "chat": b'{"id":"1","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}',
    "spaced": b'{"choices": [{"index": 0, "delta": {"content": "%b"}, "logprobs": null}]}',
    "second choice": b'{"choices":[{"index":1,"delta":{"content":"%b"}}]}',
    "two texts": b'{"choices":[{"delta":{"content":"%b"}},{"index":1,"delta":{"content":"b"}}]}',
    "reasoning": b'{"choices":[{"index":0,"delta":{"reasoning_content":"%b","content":null}}]}',
    "completion": b'{"choices":[{"index":0,"text":"%b","finish_reason":""}]}',
    "message": b'{"type":"content_block_delta","index":0,"delta":{"type":"t","text":"%b"}}',
    "with usage": b'{"choices":[{"delta":{"content":"%b"}}],"usage":{"completion_tokens":3}}',
    "with an error": b'{"choices":[{"delta":{"content":"%b"}}],"error":{"message":"no"}}',
    "finished": b'{"choices":[{"delta":{"content":"%b"},"finish_reason":"stop"}]}',
    "refusal": b'{"choices":[{"delta":{"content":"%b","refusal":"no"}}]}',
    "twice": b'{"choices":[{"delta":{"content":"%b","content":"last"}}]}',
    "no choice": b'{"content":"%b"}',
    "not JSON": b'{"content":"%b"',
    "only usage": b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4},"x":"%b"}',
}
FRAMES = [b"data: %b\n\n", b"data:%b\r\n\r\n", b"event: x\ndata: %b\n\n", b": ping\n\n",
          b"data: %b\n", b"data: " + DONE + b"\n\n"]  # fmt: skip


def without_templates() -> Completion:
    completion = Completion(strip=True)
    completion._templates_left = 0
    return completion


def state(completion: Completion) -> dict[str, Any]:
    private = {"_events", "_template", "_templates_left"}
    found = {name: value for name, value in vars(completion).items() if name not in private}
    return {**found, "waiting": completion.waiting, "text": completion.text}


def random_stream(rng: Random) -> list[bytes]:
    """Return the chunks of a stream: mostly of one kind, sometimes several events or parts."""
    kinds, chunks = rng.sample(sorted(KINDS), 2), []
    for _ in range(30):
        kind = KINDS[kinds[rng.random() < 0.1]]
        frame = rng.choice(FRAMES) if rng.random() < 0.2 else FRAMES[0]
        document = kind.replace(b"%b", rng.choice(TEXTS))
        chunks.append(frame.replace(b"%b", document))
    while rng.random() < 0.7:
        at = rng.randrange(len(chunks) - 1)
        chunks[at : at + 2] = [chunks[at] + chunks[at + 1]]
    while rng.random() < 0.7:
        at = rng.randrange(len(chunks))
        cut = rng.randrange(len(chunks[at]) + 1)
        chunks[at : at + 1] = [chunks[at][:cut], chunks[at][cut:]]
    return chunks


@pytest.mark.parametrize("seed", range(300))
def test_a_stream_is_read_the_same_with_and_without_templates(seed: int) -> None:
    whole, quick = without_templates(), Completion(strip=True)
    for chunk in random_stream(Random(seed)):
        assert quick.feed(chunk) == whole.feed(chunk)
        assert state(quick) == state(whole)
    assert quick.close() == whole.close()
    assert state(quick) == state(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_read_the_same_after_a_chunk_like_it(kind: str) -> None:
    whole, quick = without_templates(), Completion(strip=True)
    for text in [b"first", b"second", *TEXTS]:
        event = b"data: %b\n\n" % KINDS[kind].replace(b"%b", text)
        assert quick.feed(event) == whole.feed(event)
        assert state(quick) == state(whole)


def reads(monkeypatch: pytest.MonkeyPatch, events: list[bytes]) -> int:
    """Return how many of these events are read whole."""
    count, read = 0, Completion._read

    def counted(self: Completion, event: Any, document: Any) -> bytes:
        nonlocal count
        count += 1
        return read(self, event, document)

    completion = Completion()
    monkeypatch.setattr(Completion, "_read", counted)
    for event in events:
        completion.feed(event)
    return count


@pytest.mark.parametrize("kind", ["chat", "spaced", "reasoning", "completion"])
def test_of_chunks_that_differ_in_their_text_only_the_first_is_read_whole(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    texts = [json.dumps(f"word {number}\n").encode()[1:-1] for number in range(40)]
    events = [b"data: %b\n\n" % KINDS[kind].replace(b"%b", text) for text in texts]
    assert reads(monkeypatch, events) == 2  # the first, and the sample made from it
    assert reads(monkeypatch, [b"".join(events)]) == 2


def test_a_stream_whose_chunks_always_differ_stops_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    event = b'data: {"choices":[{"delta":{"content":"a"}}],"obfuscation":"%d"}\n\n'
    assert reads(monkeypatch, [event % number for number in range(40)]) == 44


def test_a_chunk_without_a_text_has_no_template() -> None:
    assert enclosing(b'data: {"choices":[{"delta":{"content":""}}]}\n\n') is None
    assert enclosing(b": ping\n\n") is None
