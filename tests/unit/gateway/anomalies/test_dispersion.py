"""What a series does by itself is no anomaly; what it never does is one, at every time scale."""

import copy
import math
from random import Random

import pytest

from tollway.gateway.anomalies.detector import REST_S, TICK_S, AnomalyDetector, Total
from tollway.gateway.anomalies.dispersion import (
    BINS,
    FADE_MIN,
    KNOWN_MIN,
    MULTIPLES,
    STEP,
    Dispersion,
    log_ratio,
)

DAY = 8640  # ticks


def shown(dispersion: Dispersion, logs: list[float]) -> Dispersion:
    for log in logs:
        dispersion.see(dict.fromkeys(MULTIPLES, log))
    return dispersion


def test_one_time_in_fifty_is_usual() -> None:
    rng = Random(1)
    logs = [rng.gauss(0, 0.3) for _ in range(KNOWN_MIN)]
    dispersion = shown(Dispersion(), logs)

    assert dispersion.is_known
    expected = sorted(logs)[int(0.98 * len(logs))]
    for scale_s in MULTIPLES:
        assert dispersion.usual(scale_s) == pytest.approx(expected, abs=STEP)


def test_what_was_long_ago_fades() -> None:
    dispersion = shown(Dispersion(), [2.0] * KNOWN_MIN)
    shown(dispersion, [0.1] * 3 * FADE_MIN)

    assert dispersion.usual(3600) == pytest.approx(0.1, abs=STEP)


def test_ratios_beyond_the_last_bin_count_as_that() -> None:
    assert shown(Dispersion(), [99.0]).usual(60) == pytest.approx(BINS * STEP)


def test_it_survives_a_restart_and_damage_is_refused() -> None:
    before, after = shown(Dispersion(), [0.1, 0.5, 1.2] * KNOWN_MIN), Dispersion()
    after.load(before.save())

    assert after.is_known
    assert [after.usual(scale_s) for scale_s in MULTIPLES] == [
        before.usual(scale_s) for scale_s in MULTIPLES
    ]
    with pytest.raises(ValueError, match="damaged"):
        after.load({"samples": 1, "bins": {str(scale_s): [1.0] for scale_s in MULTIPLES}})


def test_an_idle_hour_has_a_ratio() -> None:
    assert log_ratio(0.0, 0.0, 0.0) == log_ratio(0.0, 1.0, 0.0) == log_ratio(1.0, 0.0, 0.0) == 0.0
    assert log_ratio(0.0, 1.0, 1.0) == pytest.approx(math.log(0.05 / 1.05))
    assert log_ratio(1.0, 0.0, 1.0) == pytest.approx(math.log(1.05 / 0.05))


class Stream:
    """Spend of one tenant, in dollars a tick, as its alarms count."""

    def __init__(self) -> None:
        self.detector = AnomalyDetector()
        self.now_s = self.usd = self.requests = 0.0
        self.causes: list[str] = []

    def run(self, usd_by_tick: list[float], *, price: float = 1.0) -> int:
        """Continue; `price`: a factor of what each request costs."""
        alarms = 0
        for usd in usd_by_tick:
            self.now_s += TICK_S
            self.usd += usd * price
            self.requests += usd * 1000
            total = Total(self.requests, self.requests, self.usd)
            begun, _ = self.detector.observe({("chat", "large", "acme"): total}, self.now_s)
            alarms += sum(anomaly.kind == "all" for anomaly in begun)
            self.causes += [anomaly.cause for anomaly in begun]
        return alarms


@pytest.fixture(scope="module")
def was_steady() -> Stream:
    stream = Stream()
    assert stream.run([0.1] * (5 * DAY // 2)) == 0
    return stream


@pytest.fixture
def steady(was_steady: Stream) -> Stream:
    """Two and a half days of steady spend."""
    return copy.deepcopy(was_steady)


def bursts(ticks: int, times: float, rng: Random) -> list[float]:
    """Return spend that rises to a multiple for ten minutes, about eight times a day."""
    out: list[float] = []
    while len(out) < ticks:
        out += [0.1] * int(rng.expovariate(1 / 1000)) + [0.1 * times] * 60
    return out[:ticks]


def test_bursts_that_a_series_has_every_day_raise_no_alarm_once_they_are_known() -> None:
    stream, rng = Stream(), Random(2)
    first = stream.run(bursts(2 * DAY, 6.0, rng))
    assert first > 0  # nothing is known of it yet
    assert stream.run(bursts(2 * DAY, 6.0, rng)) == 0
    assert stream.run([0.1] * 360 + [6.0] * 60) == 1  # ten times as high as they are


def test_a_slight_rise_of_a_steady_series_is_found_over_hours(steady: Stream) -> None:
    assert steady.run([0.14] * 720) == 1


def test_a_rise_soon_after_another_is_told_only_if_it_is_worse(steady: Stream) -> None:
    assert steady.run([0.5] * 60 + [0.1] * 180) == 1
    assert not steady.detector.active
    assert steady.run([0.5] * 60) == 0
    assert steady.detector.active
    assert steady.run([0.1] * 180) == 0
    assert steady.run([2.0] * 60 + [0.1] * 180) == 1
    steady.run([0.1] * int(REST_S / TICK_S))
    assert steady.run([0.5] * 60) == 1


def test_a_higher_price_is_found_where_as_many_more_requests_would_be_usual() -> None:
    stream, rng = Stream(), Random(3)
    stream.run(bursts(3 * DAY, 6.0, rng))
    quiet = copy.deepcopy(stream)

    assert quiet.run([0.18] * 180) == 0
    assert stream.run([0.1] * 180, price=1.8) == 1
    assert stream.causes[-1] == "price"


@pytest.mark.parametrize("idle_s", [3600, 2100])
def test_traffic_that_stops_in_its_first_hour_is_watched_on(idle_s: int) -> None:
    stream = Stream()
    stream.run([0.0] * (idle_s // 10))
    stream.run([0.1] * 270)
    assert stream.run([0.0] * 400) == 0


def test_a_burst_is_over_although_the_hours_still_hold_it(steady: Stream) -> None:
    assert steady.run([1.0] * 60) == 1
    steady.run([0.1] * 90)
    assert not steady.detector.active
    assert steady.run([0.1] * 2000) == 0
    assert not steady.detector.active
