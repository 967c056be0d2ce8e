"""Forecasts the calls of the coming hours: growth, seasons, and the worst of many futures.

Theory of operation. The logarithm of an hour's rate is the sum of a level, a constant weekly
growth, a daily season (waves of 24, 12, 8 and 6 hours) and a step for each day of the week, fitted
by quasi-Poisson regression. A component is fitted only if the history is long enough to separate it
from the others (see MIN_*); a component that is left out is taken to be zero, and reported.

Futures are sampled many times. Each one draws the coefficients with their uncertainty (a sandwich
estimator clustered by day, because the errors of one day's hours are correlated: Liang and Zeger,
Biometrika 73, 1986), and adds whole days of residuals, with the bursts and holidays of the past.
The worst case is a quantile of the highest hour over these futures. Events that never happened are
not in it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DAY_H, WEEK_H = 24, 168
MIN_DAY_H = 2 * DAY_H  # of history, to separate the hours of a day from chance
MIN_WEEK_H = 2 * WEEK_H  # of history, to separate the days of a week and growth
WAVES = 4  # of a day: a morning's and an afternoon's peak, and a night between
RIDGE = 1e-3  # added to a coefficient's precision, so that hours without calls do no harm
FITS = 25  # steps of Newton's method at most; it converges in five
GROWTH_MAX = math.log(2.0)  # per week: faster growth is a launch, not a trend


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates of the hours to come, in calls per second: `expected` (h), and `futures` (n x h).

    `growth_week` is the share by which traffic grows in a week; `known` names the parts fitted.
    """

    expected: Floats
    futures: Floats
    growth_week: float
    known: tuple[str, ...]

    def worst(self, share: float) -> float:
        """Return the rate that the highest hour does not exceed in this share of the futures."""
        return float(np.quantile(self.futures.max(axis=1), share))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How a forecast of the held-out last day compares with the actual traffic.

    `error` is the sum of absolute errors over the day's calls; `expected_peak`, `worst_peak` and
    `peak` are rates, and `peak` is the actual one.
    """

    error: float
    expected_peak: float
    worst_peak: float
    peak: float


def forecast(
    rates: Floats,
    first_h: int,
    hours: int,
    rng: np.random.Generator,
    *,
    step_s: float = 3600.0,
    draws: int = 500,
    growth_week: float | None = None,
) -> Forecast:
    """Return the forecast of the `hours` after the last of `rates`.

    `rates` are calls per second in consecutive hours, nan where unknown; `first_h` is the first
    hour, in hours since 1970, and `step_s` how long each was observed. `growth_week` overrides the
    growth fitted to the history.
    """
    own = math.log1p(growth_week) if growth_week is not None else None
    fitted = _fit(rates, first_h, step_s, own)
    ahead = _features(first_h + len(rates) + np.arange(hours), fitted)
    drawn = rng.multivariate_normal(fitted.beta, fitted.doubt, draws, method="svd")
    # Residuals multiply a future by whole days, hour by hour.
    left = _days_left(rates, first_h, fitted)
    start = (first_h + len(rates)) % DAY_H
    days = -(-(hours + start) // DAY_H)
    noise = left[rng.integers(0, len(left), (draws, days))].reshape(draws, -1)
    futures = np.exp(drawn @ ahead.T) * noise[:, start : start + hours]
    growth = math.expm1(fitted.growth(fitted.beta))
    return Forecast(np.exp(ahead @ fitted.beta), futures, growth, fitted.known)


def held_out(rates: Floats, first_h: int, rng: np.random.Generator, share: float) -> HeldOut | None:
    """Return how well earlier days predict the last one; None if there are too few of them."""
    if len(rates) < MIN_DAY_H + DAY_H:
        return None
    came = rates[-DAY_H:]
    known = np.isfinite(came)
    if not known.any() or np.nansum(came) <= 0.0:
        return None
    predicted = forecast(rates[:-DAY_H], first_h, DAY_H, rng)
    error = float(np.abs(predicted.expected - came)[known].sum() / came[known].sum())
    return HeldOut(
        error, float(predicted.expected.max()), predicted.worst(share), float(came[known].max())
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    beta: Floats
    doubt: Floats
    known: tuple[str, ...]
    own_growth: float | None
    origin_h: int

    def growth(self, beta: Floats) -> float:
        if self.own_growth is not None:
            return self.own_growth
        return float(beta[1]) if "growth" in self.known else 0.0


def _features(hour: NDArray[np.int64], fit: _Fit) -> Floats:
    """Return a row of features for each hour; the second is weeks, if growth is fitted."""
    weeks = (hour - fit.origin_h) / WEEK_H
    columns = [np.ones(len(hour))]
    if fit.own_growth is not None or "growth" in fit.known:
        columns.append(weeks)
    if "hours of the day" in fit.known:
        state = 2.0 * np.pi * (hour % DAY_H) / DAY_H
        columns += [wave(state * k) for k in range(1, WAVES + 1) for wave in (np.sin, np.cos)]
    if "days of the week" in fit.known:
        day = (hour // DAY_H) % 7
        columns += [(day == at) - 1.0 / 7.0 for at in range(6)]
    return np.column_stack(columns)


def _fit(rates: Floats, first_h: int, step_s: float, own: float | None) -> _Fit:
    hours = int(np.isfinite(rates).sum())
    known = [
        name
        for name, least_h in (
            ("growth", MIN_WEEK_H if own is None else math.inf),
            ("hours of the day", MIN_DAY_H),
            ("days of the week", MIN_WEEK_H),
        )
        if hours >= least_h
    ]
    # Time counts from the last hour, so the level is the present one and growth pivots about it.
    fit = _Fit(np.zeros(0), np.zeros((0, 0)), tuple(known), own, first_h + len(rates) - 1)
    seen = np.flatnonzero(np.isfinite(rates))
    x, y = _features(first_h + seen, fit), rates[seen] * step_s
    beta = np.zeros(x.shape[1])
    beta[0] = math.log(max(float(y.mean()), 1e-9))
    fixed = np.zeros(x.shape[1], bool)
    if own is not None:
        beta[1], fixed[1] = own, True
    beta = _newton(x, y, beta, fixed)
    if "growth" in known and abs(beta[1]) > GROWTH_MAX:
        beta[1], fixed[1] = math.copysign(GROWTH_MAX, beta[1]), True
        beta = _newton(x, y, beta, fixed)
    doubt = _sandwich(x, y, beta, fixed, (first_h + seen) // DAY_H)
    beta[0] -= math.log(step_s)
    return _Fit(beta, doubt, fit.known, own, fit.origin_h)


def _newton(x: Floats, y: Floats, beta: Floats, fixed: NDArray[np.bool_]) -> Floats:
    """Return the coefficients of a Poisson regression; fixed ones stay unchanged."""
    beta, free = beta.copy(), np.flatnonzero(~fixed)
    for _ in range(FITS):
        mean = np.exp(np.minimum(x @ beta, 60.0))
        slope = x[:, free].T @ (y - mean) - RIDGE * np.where(free == 0, 0.0, beta[free])
        step = np.linalg.solve(_information(x[:, free], mean), slope)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))  # limit the step
        beta[free] += step
        if np.abs(step).max() < 1e-9:
            break
    return beta


def _information(x: Floats, mean: Floats) -> Floats:
    information: Floats = (x * mean[:, None]).T @ x + RIDGE * np.eye(x.shape[1])
    return information


def _sandwich(
    x: Floats, y: Floats, beta: Floats, fixed: NDArray[np.bool_], day: NDArray[np.int64]
) -> Floats:
    """Return the coefficients' covariance, clustered by day."""
    mean = np.exp(x @ beta)
    free = np.flatnonzero(~fixed)
    inverse = np.linalg.inv(_information(x[:, free], mean))
    _, place = np.unique(day, return_inverse=True)
    count = int(place.max()) + 1
    scores = np.zeros((count, len(free)))
    np.add.at(scores, place, x[:, free] * (y - mean)[:, None])
    few = count / max(count - 1, 1)
    doubt = np.zeros((len(beta), len(beta)))
    doubt[np.ix_(free, free)] = inverse @ (scores.T @ scores) @ inverse * few
    return doubt


def _days_left(rates: Floats, first_h: int, fit: _Fit) -> Floats:
    """Return the residuals of each day (d x 24), as factors; 1 for unknown hours."""
    hour = first_h + np.arange(len(rates))
    expected = np.exp(_features(hour, fit) @ fit.beta)
    factors = np.where(np.isfinite(rates), rates / expected, 1.0)
    # A fit is closer to the days that it saw than to others. Correct by the number of its
    # coefficients that describe whole days.
    days = np.isfinite(rates).sum() / DAY_H
    spent = 1 + ("growth" in fit.known) + 6 * ("days of the week" in fit.known)
    if days > spent:
        factors = 1.0 + (factors - 1.0) * math.sqrt(days / (days - spent))
        factors = np.maximum(factors, 0.0)
    day = hour // DAY_H - first_h // DAY_H
    left: Floats = np.full((int(day[-1]) + 1, DAY_H), np.nan)
    left[day, hour % DAY_H] = factors
    whole: Floats = left[np.isfinite(left).all(axis=1)]
    if len(whole):
        return whole
    # Less than a day: any hour may follow any other.
    drawn = np.random.default_rng(0).choice(factors, (50, DAY_H))
    return np.asarray(drawn, float)
