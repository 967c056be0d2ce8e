"""The benchmark of situations: what its upstream sends, and that its checks can fail."""

import pytest

from benchmarks import cases
from benchmarks.situations import chats
from benchmarks.situations.client import Client, Reply
from benchmarks.situations.situation import Situation
from benchmarks.situations.upstream import Upstream, reply, stream


class Says(Client):
    """A client whose gateway answers everything with one reply."""

    def ask(self, *_: object, **__: object) -> Reply:
        return Reply(418, {}, b"{}", whole=True)

    def raw(self, *_: object, **__: object) -> bytes:
        return b"HTTP/1.1 418 X\r\n\r\n"

    def parts(self, *_: object) -> object:  # type: ignore[override]
        return iter(())


@pytest.mark.parametrize(
    "situation",
    [
        pytest.param(one, id=one.name)
        for group in cases.GROUPS.values()
        for one in group
        # These wait for the upstream, or ask for nothing but a refusal.
        if one.name not in {"a client that leaves", "JSON that is cut"}
    ],
)
def test_a_gateway_that_answers_nothing_right_fails(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats, "REST_S", 0.0)
    assert cases.verdict(situation, Says(0, {}), Upstream())


def test_a_reply_and_a_stream_are_exact_bytes() -> None:
    assert reply(b"{}", 429, retry_after="7") == [
        b"HTTP/1.1 429 X\r\ncontent-length: 2\r\ncontent-type: application/json\r\n"
        b"retry-after: 7\r\n\r\n{}"
    ]
    parts = [part for part in stream({"a": 1}) if isinstance(part, bytes)]
    body = b'10\r\ndata: {"a": 1}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n'
    assert b"".join(parts).partition(b"\r\n\r\n")[2] == body


def test_a_frame_of_zstd_is_one_raw_block() -> None:
    assert chats.zstd(b"abc").hex() == "28b52ffd20031900" + "00" + b"abc".hex()


def test_the_table_counts_what_passed() -> None:
    first = cases.Gateway("A", "1", [], {})
    table = cases.table([(first, {"g: x": "", "g: y": "wrong"}), (first, {"g: x": "", "g: y": ""})])
    assert table.splitlines()[2:4] == ["| g: 2 | 1 | 2 |", "| **all: 2** | **1** | **2** |"]
    assert table.splitlines()[-1] == "| g: y | no | yes |"
