"""Connections are reused only if their server keeps them open."""

import pytest

from tollway.backends.http.reuse import PAUSE_MAX_S, PAUSE_S, Reuse


def test_connections_are_used_again_until_one_was_closed() -> None:
    reuse = Reuse()
    assert reuse.allows(True, 0.0)
    reuse.closed(True, 10.0)
    assert not reuse.allows(True, 10.0 + PAUSE_S - 1)
    assert reuse.allows(True, 10.0 + PAUSE_S)


def test_what_is_learned_of_one_kind_of_reply_says_nothing_of_the_other() -> None:
    reuse = Reuse()
    reuse.closed(True, 10.0)
    assert reuse.allows(False, 10.0)


def test_the_pause_doubles_while_it_happens_and_is_forgotten_after_long() -> None:
    reuse, now_s = Reuse(), 10.0
    for pause_s in (PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S, 8 * PAUSE_S, PAUSE_MAX_S, PAUSE_MAX_S):
        reuse.closed(True, now_s)
        reuse.closed(True, now_s)  # another that was kept before: the same conclusion
        assert not reuse.allows(True, now_s + pause_s - 1)
        now_s += pause_s
        assert reuse.allows(True, now_s)
    now_s += 10 * PAUSE_MAX_S
    reuse.closed(True, now_s)
    assert reuse.allows(True, now_s + PAUSE_S)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_what_is_configured_is_not_learned(keep_alive: bool) -> None:
    reuse = Reuse(keep_alive)
    reuse.closed(True, 10.0)
    assert reuse.allows(True, 10.0) is keep_alive
