"""Which header fields are forwarded, and which the gateway adds or removes."""

import pytest

from tollway.gateway.data_plane.headers import forwarded, parse_tags, returned
from tollway.gateway.data_plane.problems import HttpProblem


def test_hop_by_hop_fields_and_those_that_connection_names_are_dropped_both_ways() -> None:
    head = [
        (b"connection", b"close, X-Private"),
        (b"x-private", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"trailers"),
        (b"x-kept", b"a"),
        (b"x-kept", b"b"),
    ]
    kept, _ = forwarded(head, b"gw")
    assert kept == [(b"x-kept", b"a"), (b"x-kept", b"b"), (b"via", b"1.1 gw")]
    assert returned(head, b"gw") == kept


def test_the_gateways_key_and_fields_never_reach_a_backend() -> None:
    head = [
        (b"authorization", b"Bearer tw_secret"),
        (b"x-tollway-tags", b"team=ads"),
        (b"x-tollway-min-accuracy", b"0.9"),
        (b"x-tollway-max-cost-usd", b"0.000000001"),
        (b"x-tollway-deadline-ms", b"250"),
    ]
    kept, options = forwarded(head, b"gw")
    assert kept == [(b"via", b"1.1 gw")]
    assert options.tags == {"team": "ads"}
    assert (options.floor, options.cost_nano_max, options.deadline_s) == (0.9, 1, 0.25)


def test_a_backend_cannot_speak_for_the_gateway() -> None:
    assert returned([(b"x-tollway-cost-usd", b"0")], b"gw") == [(b"via", b"1.1 gw")]


def test_via_is_extended_and_a_loop_is_refused() -> None:
    kept, _ = forwarded([(b"via", b"1.0 fred")], b"gw-1")
    assert kept == [(b"via", b"1.0 fred, 1.1 gw-1")]
    with pytest.raises(HttpProblem) as refused:
        forwarded(kept, b"gw-1")
    assert refused.value.status == 508


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-tollway-tags", b"team"),
        (b"x-tollway-tags", b"a=1,a=2"),
        (b"x-tollway-tags", b",".join(b"k%d=v" % n for n in range(17))),
        (b"x-tollway-tags", b"k=" + b"v" * 65),
        (b"x-tollway-min-accuracy", b"1.2"),
        (b"x-tollway-min-accuracy", b"nan"),
        (b"x-tollway-max-cost-usd", b"NaN"),
        (b"x-tollway-max-cost-usd", b"-1"),
        (b"x-tollway-max-cost-usd", b"1e999999"),
        (b"x-tollway-max-cost-usd", b"abc"),
        (b"x-tollway-deadline-ms", b"0"),
        (b"x-tollway-deadline-ms", b"inf"),
        (b"x-tollway-deadline-ms", b"\xff"),
    ],
)
def test_a_demand_that_cannot_be_read_is_a_400_that_names_it(name: bytes, value: bytes) -> None:
    with pytest.raises(HttpProblem) as refused:
        forwarded([(name, value)], b"gw")
    assert refused.value.status == 400
    assert name.decode() in refused.value.detail


def test_tags_are_read() -> None:
    assert parse_tags("cost_center=ads, environment=staging") == {
        "cost_center": "ads",
        "environment": "staging",
    }


def test_a_clients_accepted_codings_are_read_and_not_forwarded() -> None:
    head = [(b"accept-encoding", b"gzip"), (b"accept-encoding", b"br;q=0")]
    kept, options = forwarded(head, b"gw")
    assert kept == [(b"via", b"1.1 gw")]
    assert options.accepts == b",gzip,br;q=0"
