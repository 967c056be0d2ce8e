"""Rates of a tenant and their header fields, and what a viewer may not do."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.security.keys import hash_key

SLOW, FREE, VIEWER, ADMIN = "tw_slow", "tw_free", "tw_viewer", "tw_admin"
KEYS = f"""
[[tenants]]
name = "slow"
key_hash = "{hash_key(SLOW)}"
rate = {{ requests_per_s = 0.001, burst = 3 }}

[[tenants]]
name = "free"
key_hash = "{hash_key(FREE)}"
rate = {{ usd_per_s = 0.00015 }}
"""


def admitted(rate: RateLimit, times: list[float]) -> list[bool]:
    found = []
    for now_s in times:
        try:
            rate.admit(now_s)
            found.append(True)
        except HttpProblem:
            found.append(False)
    return found


def test_a_burst_is_admitted_and_then_the_rate() -> None:
    rate = RateLimit(2.0, 4.0, None)
    assert admitted(rate, [10.0] * 6) == [True] * 4 + [False] * 2
    assert admitted(rate, [10.4, 10.5, 10.6, 11.0, 11.1]) == [False, True, False, True, False]
    assert admitted(rate, [1000.0] * 5) == [True] * 4 + [False]


def test_over_a_long_time_no_more_than_the_rate_is_admitted_despite_clock_changes() -> None:
    rate = RateLimit(5.0, 5.0, None)
    times = [0.013 * step for step in range(10_000)]
    times[5_000:5_100] = [1.0] * 100  # back, for a while
    assert sum(admitted(rate, times)) <= 5 * 130 + 5


def test_who_is_refused_is_told_how_long() -> None:
    rate = RateLimit(0.5, 1.0, None)
    rate.admit(0.0)
    with pytest.raises(HttpProblem) as refused:
        rate.admit(0.5)
    assert refused.value.status == 429
    assert dict(refused.value.headers) == {
        b"retry-after": b"2",
        b"ratelimit-policy": b'"requests";q=1;w=2',
        b"ratelimit": b'"requests";r=0;t=2',
    }


@pytest.mark.integration
def test_each_tenant_has_its_rate_and_others_do_not_suffer(tmp_path: Path) -> None:
    async def main() -> None:
        server = f"""admin_key_hash = "{hash_key(ADMIN)}"
viewer_key_hash = "{hash_key(VIEWER)}" """
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, server=server, more=KEYS)
            async with running(config, tmp_path) as tollway:
                replies = [await tollway.infer(authorization=f"Bearer {SLOW}") for _ in range(5)]
                assert [reply.status_code for reply in replies] == [200] * 3 + [429] * 2
                left = [reply.headers["ratelimit"] for reply in replies[:3]]
                assert [one.partition(";t=")[0] for one in left] == [
                    '"requests";r=2',
                    '"requests";r=1',
                    '"requests";r=0',
                ]
                assert int(replies[4].headers["retry-after"]) > 900
                assert replies[4].headers["content-type"] == "application/problem+json"
                assert replies[4].json()["title"] == "Too many requests"
                spent = [await tollway.infer(authorization=f"Bearer {FREE}") for _ in range(4)]
                statuses = [reply.status_code for reply in spent]
                assert statuses[:2] == [200, 200]
                assert 429 in statuses
                page = tollway.url + "/_tollway/budgets"
                viewer = {"authorization": f"Bearer {VIEWER}"}
                assert (await tollway.client.get(page, headers=viewer)).status_code == 200
                reload = tollway.url + "/_tollway/reload"
                denied = await tollway.client.post(reload, headers=viewer)
                assert denied.status_code == 403
                assert (await tollway.client.get(page)).status_code == 401

    run(main)


def test_a_key_that_ends_is_read_from_the_settings(tmp_path: Path) -> None:
    from tollway.gateway import settings
    from tollway.gateway.cli import config_report

    text = two_backends(
        "http://127.0.0.1:1", "http://127.0.0.1:1", server="allow_anonymous = false"
    ) + (
        f'[[tenants]]\nname = "t"\nkeys = [{{ hash = "{hash_key(SLOW)}", '
        "expires = 2027-01-31T00:00:00Z }]\n"
    )
    read = settings.parse(text, {}, folder=tmp_path)
    assert read.tenants[0].ends == {hash_key(SLOW): 1801353600.0}
    assert "2027-01-31" in config_report.as_toml(read.effective())
    with pytest.raises(Exception, match="expires"):
        settings.parse(text.replace("2027-01-31T00:00:00Z", "2027-01-31"), {}, folder=tmp_path)
