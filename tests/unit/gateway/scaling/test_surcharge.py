"""What a call adds to the cost of replicas."""

from functools import partial

import pytest

from tollway.gateway.scaling.surcharge import surcharge_usd

OF = partial(surcharge_usd, usd_per_hour=3600.0, lead_s=100.0, kept_s=300.0)  # $1 a second


def test_what_runs_already_adds_nothing() -> None:
    assert OF(running=2, needed=1.2, rate_per_s=5.0) == 0.0
    assert OF(running=2, needed=2.0, rate_per_s=5.0) == 0.0


def test_the_first_call_pays_for_a_start_and_the_time_that_the_replica_stays() -> None:
    assert OF(running=0, needed=0.0, rate_per_s=0.0) == pytest.approx(400.0)
    assert OF(running=0, needed=0.0, rate_per_s=0.0, wait_usd_per_hour=36.0) == pytest.approx(401.0)


def test_many_calls_share_what_one_more_replica_leaves_idle() -> None:
    # 2.25 are needed, 2 run: one is added, three quarters of it idle.
    assert OF(running=2, needed=2.25, rate_per_s=1.0) == pytest.approx((100 + 0.75 * 300) / 400)
    assert OF(running=2, needed=3.0, rate_per_s=1.0) == pytest.approx(100 / 400)
