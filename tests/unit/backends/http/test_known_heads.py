"""A head that came twice is read by one look-up, and never taken for more or less than it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.http.known_heads import HEAD_BYTES_MAX, HEADS_MAX, KnownHeads

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"


def taught(head: bytes = HEAD, body: bytes = b"hello") -> KnownHeads[str]:
    known = KnownHeads[str]()
    for _ in range(2):
        assert known.find(head + body) is None
        known.accepted(head + body, len(body), lambda: "made")
    return known


def test_it_is_known_from_the_third_time_on() -> None:
    assert taught().find(HEAD + b"world") == ("made", b"world")


@pytest.mark.parametrize(
    "data",
    [
        HEAD,
        HEAD + b"hell",
        HEAD + b"hello!",
        HEAD + b"hello" + HEAD + b"world",
        HEAD[:-2],
        HEAD[:-1],
        b"",
        b"\r\n" + HEAD + b"hello",
        HEAD.replace(b"5", b"05") + b"hello",
        HEAD.replace(b"200", b"500") + b"hello",
    ],
)
def test_a_read_that_is_not_exactly_such_a_message_is_left_to_the_parser(data: bytes) -> None:
    assert taught().find(data) is None


@given(st.binary(max_size=30), st.integers(0, 40))
def test_no_part_of_a_body_becomes_a_head(noise: bytes, cut: int) -> None:
    """A parser may find the end of a head elsewhere: such a message is never learned."""
    known = KnownHeads[str]()
    data = HEAD + noise
    for _ in range(3):
        known.accepted(data, cut, lambda: "made")
    found = known.find(data)
    assert (found == ("made", noise)) is (cut == len(noise))
    assert found is None or cut == len(noise)


def test_many_heads_take_bounded_memory_and_those_in_use_stay() -> None:
    known = taught()
    for number in range(5 * HEADS_MAX):
        head = b"HTTP/1.1 200 OK\r\nx-id: %d\r\ncontent-length: 0\r\n\r\n" % number
        for _ in range(2):
            known.accepted(head, 0, lambda: "other")
        if number % 100 == 0:
            assert known.find(HEAD + b"hello") is not None
    assert len(known._newer) + len(known._older) <= 2 * HEADS_MAX
    assert len(known._once) <= HEADS_MAX


def test_heads_that_come_once_push_no_other_out() -> None:
    known = taught()
    for number in range(5 * HEADS_MAX):
        known.accepted(b"HTTP/1.1 200 OK\r\nx-id: %d\r\n\r\n" % number, 0, lambda: "other")
    assert known.find(HEAD + b"hello") is not None
    assert not known._older


def test_a_long_head_is_not_kept() -> None:
    head = b"HTTP/1.1 200 OK\r\nx: %b\r\n\r\n" % (b"a" * HEAD_BYTES_MAX)
    assert taught(head, b"").find(head) is None


def test_all_can_be_forgotten() -> None:
    known = taught()
    known.clear()
    assert known.find(HEAD + b"hello") is None


def test_an_owner_of_many_heads_pushes_out_only_its_own() -> None:
    known = KnownHeads[str]()
    for _ in range(2):
        known.accepted(HEAD + b"hello", 5, lambda: "kept", lambda: "quiet")
    for number in range(5 * HEADS_MAX):
        head = b"HTTP/1.1 200 OK\r\nx-id: %d\r\ncontent-length: 0\r\n\r\n" % number
        for _ in range(2):
            known.accepted(head, 0, lambda: "other", lambda: "loud")
    assert known.find(HEAD + b"world") == ("kept", b"world")
    assert len(known._newer) + len(known._older) <= 2 * HEADS_MAX
    assert known.find(head) == ("other", b"")
