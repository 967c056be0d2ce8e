"""What requests demand of the cache, and what replies allow."""

import pytest

from tollway.gateway.caching.directives import ANY, demand, kept, lifetime_s

HTML = (b"content-type", b"text/html")
EVENTS = (b"content-type", b"text/event-stream")
NONE: frozenset[bytes] = frozenset()


@pytest.mark.parametrize(
    ("field", "mode", "looks", "keeps"),
    [
        (b"", "", True, True),
        (b"no-store", "", False, False),
        (b"max-age=5, No-Cache", "", False, True),
        (b"", "bypass", False, False),
        (b"", "refresh", False, True),
    ],
)
def test_a_request_demands(field: bytes, mode: str, looks: bool, keeps: bool) -> None:
    headers = [(b"cache-control", field)] if field else []
    wanted = demand(headers, mode)
    assert (wanted.looks, wanted.keeps) == (looks, keeps)


def test_ages_and_only_if_cached_are_read() -> None:
    assert demand([], "") is ANY
    wanted = demand([(b"cache-control", b"max-age=30, only-if-cached")], "")
    assert (wanted.age_s_max, wanted.only_cached) == (30.0, True)
    assert demand([(b"cache-control", b"max-age=x")], "").age_s_max == 0.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], 100.0),
        ([(b"cache-control", b"max-age=10")], 10.0),
        ([(b"cache-control", b"max-age=10, s-maxage=20")], 20.0),
        ([(b"cache-control", b"max-age=10"), (b"age", b"4")], 6.0),
        ([(b"cache-control", b"private, max-age=10")], 0.0),
        ([(b"cache-control", b"no-store")], 0.0),
        ([EVENTS, (b"cache-control", b"no-cache")], 100.0),
        ([EVENTS, (b"cache-control", b"private")], 0.0),
        ([(b"set-cookie", b"session=1")], 0.0),
        ([(b"set-cookie", b"__cf_bm=1; path=/")], 100.0),
        ([(b"vary", b"Accept-Encoding, Origin")], 100.0),
        ([(b"vary", b"cookie")], 0.0),
        ([(b"vary", b"*")], 0.0),
        ([(b"content-encoding", b"gzip")], 0.0),
        ([(b"content-range", b"bytes 0-1/2")], 0.0),
    ],
)
def test_a_reply_may_be_kept_for(fields: list[tuple[bytes, bytes]], expected: float) -> None:
    assert lifetime_s([*fields, HTML], 100.0, NONE) == expected


def test_a_reply_may_vary_by_what_is_part_of_the_key() -> None:
    assert lifetime_s([(b"vary", b"X-Region")], 100.0, frozenset([b"x-region"])) == 100.0


def test_fields_of_one_reply_only_are_not_kept() -> None:
    fields = [(b"date", b"x"), (b"x-ratelimit-remaining", b"1"), (b"set-cookie", b"a=b"), HTML]
    assert kept(fields) == [HTML]


@pytest.mark.parametrize(("more", "mode"), [(b"no-cache", ""), (b"no-store", ""), (b"", "refresh")])
def test_only_if_cached_holds_beside_other_demands(more: bytes, mode: str) -> None:
    wanted = demand([(b"cache-control", b"only-if-cached, " + more)], mode)
    assert (wanted.looks, wanted.only_cached) == (False, True)
