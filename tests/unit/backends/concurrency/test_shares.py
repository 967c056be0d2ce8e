"""A party has at most its share of the places, and others always find one."""

from tollway.backends.concurrency.shares import SHARE, Shares


def fill(shares: Shares, party: str, taken: int, most: int) -> int:
    """Take all places that a party gets; return how many."""
    own = 0
    while taken + own < most and shares.take(party, most - taken - own):
        own += 1
    return own


def test_one_alone_gets_nearly_all_and_the_next_one_finds_some() -> None:
    shares = Shares()
    first = fill(shares, "greedy", 0, 900)
    assert first == 801  # the last one was taken when 100 were free
    assert fill(shares, "other", first, 900) >= 80


def test_two_that_take_all_they_get_have_the_same() -> None:
    shares, own = Shares(), {"a": 0, "b": 0}
    for _ in range(900):
        for party in own:
            if sum(own.values()) < 900:
                own[party] += shares.take(party, 900 - sum(own.values()))
    assert abs(own["a"] - own["b"]) <= 1
    assert own["a"] <= SHARE * (900 - sum(own.values()) + 1)


def test_a_place_that_is_returned_can_be_taken_again() -> None:
    shares = Shares()
    assert shares.take("a", 1)
    for _ in range(20):
        assert shares.take("b", 10)
        shares.leave("b")
    shares.leave("a")
    assert shares.take("a", 0)  # it has none
