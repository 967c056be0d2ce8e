"""Draws charts as inline SVG: lines, steps, dots and bars, with axes, intervals and marks.

Pure functions: the same values give the same string. Colours are classes (`c0`, `c1`, ...) that the
page's style sheet defines for light, dark and print; hovering shows a point's values through the
SVG's own <title>, so no script is needed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

COLOURS = 8  # more lines cannot be distinguished; the colours wrap
POINTS_MAX = 2000  # points of one line: a screen has no more columns
TITLED_MAX = 200  # points with a <title>; with more, they are too dense to hover over
_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 14, 46
_TICKS = 6

NOTHING = "\N{EN DASH}"  # shown for a missing number

Style = Literal["line", "step", "dots"]


@dataclass(frozen=True, slots=True)
class Series:
    """A named series of points; `low` and `high`, if given, are the ends of their intervals.

    A point whose y is not finite is a gap in a line. `names` label dots.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    style: Style = "line"
    names: Sequence[str] | None = None
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its label with the unit, and its ends if they differ from the data's."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A reference line: vertical at `x`, or horizontal at `y`."""

    label: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its name; `low` and `high` are the ends of its interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def chart(series: Sequence[Series], x: Axis, y: Axis, marks: Sequence[Mark] = ()) -> str:
    """Return a chart of points; later series are drawn on top."""
    across = _Scale.of(x, _values(series, "x", marks), _LEFT, _WIDTH - _RIGHT)
    up = _Scale.of(y, _values(series, "y", marks), _HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(across, up, x, y)]
    parts += [_mark(mark, at, across, up) for at, mark in enumerate(marks)]
    parts += [_series(one, number % COLOURS, across, up) for number, one in enumerate(series)]
    return _svg(parts, _HEIGHT, f"{y.label} over {x.label}: {_listed(s.name for s in series)}")


def bars(values: Sequence[Bar], x: Axis, marks: Sequence[Mark] = ()) -> str:
    """Return horizontal bars from 0, one below the other; marks need an `x`."""
    ends = [v for bar in values for v in (bar.value, bar.low, bar.high) if v is not None]
    ends += [mark.x for mark in marks if mark.x is not None]
    names_px = 12 + 7 * min(34, max((len(bar.name) for bar in values), default=0))
    row_px, height = 26, 26 * len(values) + _TOP + _BOTTOM
    across = _Scale.of(x, [*ends, 0.0], names_px, _WIDTH - _RIGHT - 60)
    parts = [_ticks_across(across, _TOP, height - _BOTTOM), _label_across(x.label, across, height)]
    for row, bar in enumerate(values):
        parts.append(_bar(bar, across, _TOP + row * row_px, row_px))
    for mark in marks:
        if mark.x is not None:
            parts.append(_upright(mark.label, across(mark.x), _TOP, height - _BOTTOM))
    return _svg(parts, height, f"{x.label}: {_listed(bar.name for bar in values)}")


def legend(names: Sequence[str], dashed: Sequence[bool] = ()) -> str:
    """Return the legend of a chart's series, in order, as HTML."""
    items = [
        f'<li><svg viewBox="0 0 22 8" class="key"><path class="c{n % COLOURS} line'
        f'{" dashed" if n < len(dashed) and dashed[n] else ""}" d="M1 4H21"/></svg>'
        f"{escape(name)}</li>"
        for n, name in enumerate(names)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def number(value: float, percent: bool = False) -> str:
    """Format a number for people: three significant digits, thousands separated."""
    if not math.isfinite(value):
        return NOTHING
    if percent:
        return f"{value * 100:.3g} %"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size and size < 0.001:
        return f"{value:.2e}".replace("e-0", "e-")
    return f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool
    percent: bool

    @classmethod
    def of(cls, axis: Axis, values: Sequence[float], start: float, end: float) -> "_Scale":
        finite = [v for v in values if math.isfinite(v) and (v > 0 or not axis.log)]
        low = axis.low if axis.low is not None else min(finite, default=0.1 if axis.log else 0.0)
        high = axis.high if axis.high is not None else max(finite, default=1.0)
        if not high > low:
            pad = abs(low) * 0.1 or 1.0
            low, high = (low / 1.5, low * 1.5) if axis.log else (low - pad, high + pad)
        elif not axis.log:
            room = (high - low) * 0.04
            low = low - room if axis.low is None and low != 0.0 else low
            high = high + room if axis.high is None else high
        return cls(low, high, start, end, axis.log, axis.percent)

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, -0.02), 1.02) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            if len(powers) > 1:
                return [10.0**power for power in powers]
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(step * at, 12) for at in range(first, last + 1)]


def _values(series: Sequence[Series], axis: str, marks: Sequence[Mark]) -> list[float]:
    values = [value for one in series for value in getattr(one, axis)]
    if axis == "y":
        values += [v for one in series for ends in (one.low, one.high) if ends for v in ends]
    at = [getattr(mark, axis) for mark in marks]
    return [*values, *(value for value in at if value is not None)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    inside = "".join(parts)
    view = f'viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label, quote=True)}"'
    return f'<svg class="chart" {view}>{inside}</svg>'


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    bottom = _HEIGHT - _BOTTOM
    lines = [_ticks_across(across, _TOP, bottom), _label_across(x.label, across, _HEIGHT)]
    for tick in up.ticks():
        at = up(tick)
        lines.append(f'<path class="grid" d="M{_LEFT} {at}H{_WIDTH - _RIGHT}"/>')
        lines.append(
            f'<text class="tick end" x="{_LEFT - 7}" y="{at + 4}">{_tick(tick, up)}</text>'
        )
    middle = (_TOP + bottom) / 2
    turned = f'transform="translate(14 {middle:g}) rotate(-90)"'
    lines.append(f'<text class="axis" {turned}>{escape(y.label)}</text>')
    return "".join(lines)


def _ticks_across(across: _Scale, top: float, bottom: float) -> str:
    return "".join(
        f'<path class="grid" d="M{across(tick)} {top}V{bottom}"/>'
        f'<text class="tick" x="{across(tick)}" y="{bottom + 16}">{_tick(tick, across)}</text>'
        for tick in across.ticks()
    )


def _label_across(label: str, across: _Scale, height: float) -> str:
    middle = (across.start + across.end) / 2
    return f'<text class="axis" x="{middle:g}" y="{height - 8:g}">{escape(label)}</text>'


def _tick(value: float, scale: _Scale) -> str:
    return number(value, scale.percent)


def _mark(mark: Mark, number: int, across: _Scale, up: _Scale) -> str:
    if mark.x is not None:
        # Labels alternate between three lines, so that neighbours do not overlap.
        down = 9.0 + 14.0 * (number % 3)
        return _upright(mark.label, across(mark.x), _TOP, _HEIGHT - _BOTTOM, down)
    at = up(mark.y or 0.0)
    return (
        f'<path class="mark" d="M{_LEFT} {at}H{_WIDTH - _RIGHT}"/>'
        f'<text class="tick end" x="{_WIDTH - _RIGHT - 4}" y="{at - 4}">{escape(mark.label)}</text>'
    )


def _upright(label: str, at: float, top: float, bottom: float, down: float = 9.0) -> str:
    side = ("end", -4) if at > _WIDTH * 0.75 else ("begin", 4)
    return (
        f'<path class="mark" d="M{at} {top}V{bottom}"/>'
        f'<text class="tick {side[0]}" x="{at + side[1]}" y="{top + down}">{escape(label)}</text>'
    )


def _thinned(series: Series) -> list[int]:
    count = len(series.x)
    step = max(1, math.ceil(count / POINTS_MAX)) if series.style != "dots" else 1
    return list(range(0, count, step))


def _series(series: Series, colour: int, across: _Scale, up: _Scale) -> str:
    indices = _thinned(series)
    points = [(across(series.x[at]), up(series.y[at]), at) for at in indices]
    sound = [math.isfinite(series.y[at]) for at in indices]
    parts = []
    if series.low is not None and series.high is not None:
        parts.append(_intervals(series, indices, colour, across, up))
    if series.style != "dots":
        dashed = " dashed" if series.dashed else ""
        path = _path(points, sound, series.style)
        parts.append(f'<path class="c{colour} line{dashed}" d="{path}"/>')
    for at, fine in zip(indices, sound, strict=True):
        if fine and (series.style == "dots" or len(points) <= TITLED_MAX):
            parts.append(_dot(series, at, colour, across, up))
    return "".join(parts)


def _path(points: Sequence[tuple[float, float, int]], sound: Sequence[bool], style: Style) -> str:
    steps, down = [], False
    before: tuple[float, float] | None = None
    for (px, py, _), fine in zip(points, sound, strict=True):
        if fine and down and style == "step" and before is not None:
            steps.append(f"H{px:g}V{py:g}")
        elif fine:
            steps.append(f"{'L' if down else 'M'}{px:g} {py:g}")
        down, before = fine, (px, py)
    return "".join(steps)


def _dot(series: Series, at: int, colour: int, across: _Scale, up: _Scale) -> str:
    name = series.names[at] if series.names else series.name
    px, py = across(series.x[at]), up(series.y[at])
    title = f"{name}: {_tick(series.x[at], across)}, {_tick(series.y[at], up)}"
    radius = 4.5 if series.style == "dots" else 2.2
    shown = f'<circle class="c{colour} dot" cx="{px:g}" cy="{py:g}" r="{radius}">'
    label = ""
    if series.names:
        side, aside = ("end", -8) if px > _WIDTH * 0.8 else ("begin", 8)
        place = f'x="{px + aside:g}" y="{py - 6:g}"'
        label = f'<text class="tick {side}" {place}>{escape(name)}</text>'
    return f"{shown}<title>{escape(title)}</title></circle>{label}"


def _intervals(
    series: Series, indices: Sequence[int], colour: int, across: _Scale, up: _Scale
) -> str:
    assert series.low is not None and series.high is not None
    ends = [
        (across(series.x[at]), up(series.low[at]), up(series.high[at]))
        for at in indices
        if math.isfinite(series.low[at]) and math.isfinite(series.high[at])
    ]
    if series.style == "dots":
        return "".join(
            f'<path class="c{colour} whisker" d="M{px:g} {low:g}V{high:g}"/>'
            for px, low, high in ends
        )
    there = "L".join(f"{px:g} {high:g}" for px, _, high in ends)
    back = "L".join(f"{px:g} {low:g}" for px, low, _ in reversed(ends))
    return f'<path class="c{colour} band" d="M{there}L{back}Z"/>' if len(ends) > 1 else ""


def _bar(bar: Bar, across: _Scale, top: float, row_px: float) -> str:
    middle, zero = top + row_px / 2, across(0.0)
    left, right = sorted((zero, across(bar.value))) if math.isfinite(bar.value) else (zero, zero)
    text = number(bar.value, across.percent)
    parts = [
        f'<text class="tick end" x="{across.start - 8:g}" y="{middle + 4:g}">'
        f"{escape(bar.name[:34])}</text>",
        f'<rect class="c0 bar" x="{left:g}" y="{top + 5:g}" width="{right - left:g}" '
        f'height="{row_px - 10:g}"><title>{escape(bar.name)}: {text}</title></rect>',
    ]
    edge = right
    if bar.low is not None and bar.high is not None:
        low, high = across(bar.low), across(bar.high)
        parts.append(f'<path class="whisker ink" d="M{low:g} {middle:g}H{high:g}"/>')
        edge = max(edge, high)
    parts.append(f'<text class="tick begin" x="{edge + 6:g}" y="{middle + 4:g}">{text}</text>')
    return "".join(parts)
