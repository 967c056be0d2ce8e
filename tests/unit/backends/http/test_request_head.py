"""Heads of requests that came before are made by one look-up."""

from dataclasses import replace

import pytest

from tollway.backends.http.request_head import (
    HEAD_BYTES_MAX,
    HEADS_MAX,
    _heads,
    known_request_head,
    request_head,
)
from tollway.backends.types import Call


def test_a_head_that_came_before_is_the_same_and_one_that_is_refused_stays_refused() -> None:
    call = Call(b"POST", b"/a", [(b"host", b"b"), (b"x", b"1")], b"{}")
    for other in (
        call,
        replace(call, target=b"/b"),
        replace(call, method=b"PUT"),
        replace(call, body=b"{ }"),
        replace(call, headers=[(b"host", b"b"), (b"x", b"2")]),
        replace(call, headers=[(b"x", b"1")]),
    ):
        for host in (b"h", b"i"):
            for _ in range(2):
                assert known_request_head(other, host) == request_head(other, host)
    for _ in range(2):
        with pytest.raises(ValueError, match="line break"):
            known_request_head(replace(call, headers=[(b"x", b"1\r\ny: z")]), b"h")


def test_the_heads_that_are_kept_are_bounded() -> None:
    for number in range(2 * HEADS_MAX):
        known_request_head(Call(b"POST", b"/%d" % number, [], b"{}"), b"h")
    known_request_head(Call(b"POST", b"/long", [(b"x", b"y" * HEAD_BYTES_MAX)], b"{}"), b"h")
    assert 0 < len(_heads) <= HEADS_MAX
    assert max(map(len, _heads.values())) <= HEAD_BYTES_MAX
