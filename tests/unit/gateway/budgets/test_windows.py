"""Windows over clock changes, missing days and leap years."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.gateway.budgets.calendar import WindowSpan, window_at
from tollway.gateway.budgets.model import Window

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # until 2011 its clocks changed at one minute past midnight
    "America/Sao_Paulo",  # its clocks changed at midnight: days without a midnight
    "Pacific/Apia",  # skipped 30 December 2011
    "Pacific/Kwajalein",
    "Australia/Lord_Howe",  # changes by half an hour
    "Asia/Kathmandu",
    "Africa/Casablanca",
]
EARLY, LATE = 631_152_000, 2_524_608_000  # 1990 to 2050


def at(zone: str, *when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[misc,arg-type]


def length_h(span: WindowSpan) -> float:
    assert span.end_s is not None
    return (span.end_s - span.start_s) / 3600


@given(
    st.sampled_from(["hour", "day", "week", "month"]),
    st.sampled_from(ZONES),
    st.floats(EARLY, LATE),
)
def test_windows_tile_time(window: Window, zone: str, now_s: float) -> None:
    span = window_at(window, zone, now_s)
    assert span.end_s is not None
    assert span.start_s <= now_s < span.end_s
    assert window_at(window, zone, span.start_s) == span
    assert window_at(window, zone, span.end_s - 1) == span
    assert window_at(window, zone, span.end_s).start_s == span.end_s


@pytest.mark.parametrize(
    ("window", "zone", "when", "hours"),
    [
        ("day", "Europe/Berlin", (2026, 3, 29, 12), 23),
        ("day", "Europe/Berlin", (2026, 10, 25, 12), 25),
        ("day", "Europe/Berlin", (2026, 7, 1, 12), 24),
        ("day", "America/Sao_Paulo", (2018, 11, 4, 12), 23),  # begins at one o'clock
        ("day", "Pacific/Apia", (2011, 12, 29, 12), 24),  # the 31st follows the 29th
        ("day", "America/St_Johns", (2010, 11, 6, 12), 24),  # ends at the first midnight of two
        ("day", "America/St_Johns", (2010, 11, 7, 12), 25),
        ("week", "Europe/Berlin", (2026, 3, 25), 7 * 24 - 1),
        ("month", "UTC", (2028, 2, 29), 29 * 24),
        ("month", "UTC", (2027, 2, 1), 28 * 24),
        ("month", "UTC", (2100, 2, 28), 28 * 24),
        ("month", "Europe/Berlin", (2026, 10, 31), 31 * 24 + 1),
        ("hour", "Asia/Kathmandu", (2026, 5, 5, 5, 30), 1),
    ],
)
def test_days_and_months_have_their_true_lengths(
    window: Window, zone: str, when: tuple[int, ...], hours: float
) -> None:
    assert length_h(window_at(window, zone, at(zone, *when))) == hours


def test_a_repeated_hour_is_two_windows() -> None:
    zone = "Europe/Berlin"
    first = window_at("hour", zone, at(zone, 2026, 10, 25, 2, 30, fold=0))
    second = window_at("hour", zone, at(zone, 2026, 10, 25, 2, 30, fold=1))
    assert first.end_s == second.start_s


def test_a_week_begins_on_monday() -> None:
    start = datetime.fromtimestamp(window_at("week", "UTC", at("UTC", 2026, 11, 22)).start_s, UTC)
    assert (start.isoweekday(), start.day) == (1, 16)


def test_a_lifetime_window_has_no_end() -> None:
    assert window_at("lifetime", "UTC", 1.0) == WindowSpan(0, None)
