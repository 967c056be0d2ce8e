"""Streams are read in slices: as at once, and none takes much of the time that all take."""

import gc
import time
from collections.abc import Callable, Generator
from itertools import pairwise
from random import Random
from typing import Any

import orjson
import pytest

from tollway.backends.ports import StreamReader
from tollway.backends.protocols.anthropic.stream import MessageEvents
from tollway.backends.protocols.gemini.stream import Parts
from tollway.backends.protocols.oip.stream import EventReader
from tollway.backends.protocols.openai.stream import Completion
from tollway.backends.protocols.sse import READ_BYTES_MAX

MIB = 1 << 20
CHUNK_BYTES = 64 << 10  # as a transport reads
SHORT = [
    {"id": "c-1", "choices": [{"index": 0, "delta": {"content": text}}]} for text in ("a", "b" * 99)
]
LONG = [
    {"choices": [{"index": 0, "delta": {"content": "é" * 40_000}}]},
    {"choices": [{"index": 0, "delta": {"content": "c", "x": [[], {}] * 30_000}}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "x": ["y" * 50] * 2000},
]


def result(work: Generator[None, None, bytes]) -> bytes:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return bytes(end.value)


def state(reader: StreamReader) -> dict[str, Any]:
    return {name: value for name, value in vars(reader).items() if name != "_events"}


@pytest.mark.parametrize("seed", range(8))
def test_a_stream_says_the_same_in_slices_as_at_once(seed: int) -> None:
    rng = Random(seed)
    documents = [rng.choice(SHORT + LONG) for _ in range(8)]
    stream = b"".join([b"data: %b\n\n" % orjson.dumps(document) for document in documents])
    stream += rng.choice([b"data: [DONE]\n\n", b"data: {}", b"data: " + b"[" * 50_000])
    cuts = [0, *sorted(rng.sample(range(len(stream)), 6)), len(stream)]
    at_once, sliced = Completion(strip=True), Completion(strip=True)
    whole = at_once.feed(stream) + at_once.close()
    parts = [result(sliced.feed_slices(stream[begin:end])) for begin, end in pairwise(cuts)]
    assert b"".join(parts) + result(sliced.close_slices()) == whole
    assert state(sliced) == state(at_once)


def test_the_usage_of_an_event_with_more_than_is_kept_is_read() -> None:
    completion = Completion(strip=True)
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    event = b"data: %b\n\n" % orjson.dumps(
        {"choices": [], "usage": usage, "error": {"message": "no", "x": [[]] * 100_000}}
    )
    result(completion.feed_slices(event))
    assert completion.usage.output_tokens == 2
    assert orjson.loads(completion.refusal()[1])["usage"] == usage


HALF = MIB // 2  # in one event
FEW = MIB // 16  # one chunk of many


def members(size: int) -> bytes:
    return b"{%b}" % b",".join([b'"%06d":0' % n for n in range(size // 11)])


ATTACKS = {
    "lists": b"data: [" + b"[]," * (HALF // 3) + b"0]\n\n",
    "members": b"data: %b\n\n" % members(HALF),
    "choices": b'data: {"choices":[' + b"{}," * (HALF // 3) + b"{}]}\n\n",
    "parts": b'data: {"candidates":[{"content":{"parts":[' + b"{}," * (HALF // 3) + b"{}]}}]}\n\n",
    "texts": b'data: {"choices":[{"delta":%b}]}\n\n' % members(HALF),
    "usage": b'data: {"usage":%b,"usageMetadata":%b}\n\n'
    % (members(HALF // 2), members(HALF // 2)),
    "lines": b"data:[\n" + b"data:[],\n" * (HALF // 9) + b"data:0]\n\n",
    "empty lines": b"data\n" * (FEW // 5) + b"\n",
    "events": b"data:1\n\n" * (FEW // 8),
    "comments": b":\n\n" * (FEW // 3),
    "blanks": b"\n" * FEW,
    "returns": b"\r\n" * (FEW // 2),
    "objects": b"{}" * (FEW // 2),
}
READERS: list[Callable[[], StreamReader]] = [
    lambda: Completion(strip=True),
    MessageEvents,
    lambda: Parts(is_sse=True),
    lambda: Parts(is_sse=False),
    lambda: EventReader("m"),
]


def steps_s(reader: StreamReader, stream: bytes) -> list[float]:
    """Return the processor time of each slice."""
    steps: list[float] = []

    def run(work: Generator[None, None, bytes]) -> None:
        while True:
            began_s = time.thread_time()
            try:
                next(work)
            except StopIteration:
                return
            finally:
                steps.append(time.thread_time() - began_s)

    for at in range(0, len(stream), CHUNK_BYTES):
        run(reader.feed_slices(stream[at : at + CHUNK_BYTES]))
    run(reader.close_slices())
    return steps


def lists_s() -> float:
    """Return the processor time that reading a large event of lists takes at once."""
    text = b"[" + b"[]," * (READ_BYTES_MAX // 3 - 1) + b"0]"
    began_s = time.thread_time()
    orjson.loads(text)
    return time.thread_time() - began_s


@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.parametrize("kind", ATTACKS)
def test_no_slice_of_a_stream_takes_long(kind: str) -> None:
    gc.disable()
    try:
        at_once_s = min(lists_s() for _ in range(3))
        for reader in READERS:
            longest_s = min(max(steps_s(reader(), ATTACKS[kind])) for _ in range(2))
            assert longest_s < at_once_s / 4, reader
    finally:
        gc.enable()
