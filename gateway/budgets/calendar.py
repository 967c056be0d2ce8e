"""Budget windows: the period that a limit applies to, in the budget's time zone.

A window is identified by its start. A start is the *first instant* at which the local calendar
shows a new hour, day, week (from Monday) or month. Windows therefore cover all time without gaps or
overlaps, even when clocks change:

- A day has 23 or 25 hours when the clocks change.
- A day whose midnight does not exist starts after the gap.
- A day whose midnight occurs twice starts at the first.
- A repeated hour is a separate window.
"""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tollway.gateway.budgets.model import Window


class WindowSpan(NamedTuple):
    """A window in whole seconds since the epoch. The end is exclusive; None means no end."""

    start_s: int
    end_s: int | None


def window_at(window: Window, zone: str, now_s: float) -> WindowSpan:
    """Return the window that contains an instant. Raises ZoneInfoNotFoundError."""
    if window == "lifetime":
        return WindowSpan(0, None)
    starts = _starts_near(window, ZoneInfo(zone), now_s)
    start_s = max(start for start in starts if start <= now_s)
    return WindowSpan(start_s, min(start for start in starts if start > now_s))


def _starts_near(window: Window, zone: ZoneInfo, now_s: float) -> set[int]:
    """Return window starts around an instant, at least one before it and one after it."""
    local = datetime.fromtimestamp(now_s, zone)
    if window == "hour":
        return _hours(local.replace(minute=0, second=0, microsecond=0, tzinfo=None), zone)
    today = local.date()
    if window == "day":  # three each way: a zone may skip or repeat a day
        days = [today + timedelta(days=n) for n in range(-3, 4)]
    elif window == "week":
        monday = today - timedelta(days=today.weekday())
        days = [monday + timedelta(weeks=n) for n in range(-2, 3)]
    else:
        days = [_month(today, n) for n in range(-2, 3)]
    return {_first_instant(day, zone) for day in days}


def _month(day: date, shift: int) -> date:
    months = day.year * 12 + day.month - 1 + shift
    return date(months // 12, months % 12 + 1, 1)


def _hours(hour: datetime, zone: ZoneInfo) -> set[int]:
    """Return every instant at which a clock near `hour` shows a full hour."""
    instants = set()
    for naive in (hour + timedelta(hours=n) for n in (*range(-3, 4), 24, 25)):  # a day can vanish
        for fold in (0, 1):
            instant = naive.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            if instant.astimezone(zone).replace(tzinfo=None) == naive:  # not in a gap
                instants.add(int(instant.timestamp()))
    return instants


def _first_instant(day: date, zone: ZoneInfo) -> int:
    """Return the first second whose local date is `day` or later."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    # If midnight does not exist, fold 1 gives an instant before the gap and fold 0 one after it.
    before, after = sorted(int(midnight.replace(fold=fold).timestamp()) for fold in (0, 1))
    if _date(before, zone) >= day:
        return before
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _date(middle, zone) >= day else (middle, after)
    return after


def _date(instant_s: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(instant_s, zone).date()
