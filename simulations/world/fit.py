"""Fits a scenario to a journal: its traffic, and each backend's cost, latency and quality.

What a journal cannot show is left as a gateway cannot know it: latencies include the time that
calls waited, so the scenario's servers never make them wait again, and the requests are all of one
class. The scenario's policy draws the journal's shares of the backends by chance; `compare` asks
for other policies in the same world.
"""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.logs import BadLog, Floats, Log
from tollway.simulations.replay.replay import LABELS_MIN, Replay
from tollway.simulations.replay.targets import parse

CALLS_MIN = 200  # with fewer, quantiles of latencies are noise; a lognormal law has two parameters
QUANTILES = np.linspace(0.0, 1.0, 101)
SERVERS = 100_000  # so many that nothing waits
SWING_ERRORS = 4.0  # standard errors of no daily peak, above which one is fitted


@dataclass(frozen=True, slots=True)
class Fitted:
    """A backend as fitted: dollars per call, quality in [0, 1] and its interval, seconds."""

    name: str
    calls: int
    cost_usd: float
    quality: float
    ends: tuple[float, float]
    latency_s: float
    latency_spread: float
    latency_quantiles_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class World:
    """A scenario's text, its backends and what it leaves out."""

    text: str
    backends: tuple[Fitted, ...]
    notes: tuple[str, ...]


def fit(log: Log, tenants: Floats, name: str = "fitted") -> World:
    """Return the world of a log; `tenants` are their numbers of requests. BadLog if too short."""
    if len(log) < 2 or log.time[-1] <= log.time[0]:
        raise BadLog("a scenario needs at least two decisions at different times")
    notes = [*log.notes]
    backends = tuple(_backends(log, notes))
    left = sum(log.excluded.values())
    if left:
        notes.append(
            f"{left} of {left + len(log)} requests failed, were refused or were drawn again; they "
            "count as arrivals only"
        )
    if (log.total_usd > log.cost_usd * (1.0 + 1e-9) + 1e-12).any():
        notes.append(
            "some requests called several backends (cascade, hedging or fallback); the scenario "
            "calls one, so it spends less"
        )
    lines = [
        f"name = {json.dumps(name)}",
        f'about = "Fitted to a journal of {len(log) + left:,} requests. Latencies include waiting, '
        'so servers have no queues."',
        *_traffic(log, left),
        *_tenants(tenants),
        *_labels(log),
        "",
        "[route]",
        'policy = "weighted"  # the journal\'s shares; see tollway simulate compare for others',
        f"policy_options = {{ weights = {{ {_shares(log, backends)} }} }}",
    ]
    for one in backends:
        lines += _table(one)
    return World("\n".join([*lines, ""]), backends, tuple(notes))


def _traffic(log: Log, left: int) -> list[str]:
    count = len(log) + left
    seconds = float(log.time[-1] - log.time[0]) * len(log) / (len(log) - 1)
    start = datetime.fromtimestamp(float(log.time[0]), UTC)
    lines = [
        f"start = {start.isoformat(timespec='seconds')}",
        f"hours = {seconds / 3600.0:.6g}",
        "",
        "[workload]",
        f"requests_per_day = {count * 86_400.0 / seconds:.6g}",
    ]
    days = seconds // 86_400.0
    if days:  # over whole days, so that no hour counts twice
        times = log.time[log.time < log.time[0] + days * 86_400.0]
        turn = complex(np.exp(2j * math.pi * (times % 86_400.0) / 86_400.0).mean())
        if 2.0 * abs(turn) > SWING_ERRORS * math.sqrt(2.0 / len(times)):
            hour = (math.atan2(turn.imag, turn.real) / (2.0 * math.pi) * 24.0) % 24.0
            lines += [
                'arrivals = "diurnal"',
                f"swing = {min(2.0 * abs(turn), 1.0):.4g}",
                f"peak_hour = {min(hour, 23.99):.4g}",
            ]
    return lines


def _tenants(counts: Floats) -> list[str]:
    """Return the number of tenants, and the exponent of Zipf's law that is likeliest."""
    ranked = np.sort(counts)[::-1][:10_000]
    logs = np.log(np.arange(1, len(ranked) + 1))
    grid = np.linspace(0.0, 5.0, 101)
    likely = [
        -s * (ranked * logs).sum() - ranked.sum() * math.log(np.exp(-s * logs).sum()) for s in grid
    ]
    return [f"tenants = {len(ranked)}", f"zipf = {grid[int(np.argmax(likely))]:.4g}"]


def _labels(log: Log) -> list[str]:
    told = np.isfinite(log.quality)
    lines = ["", "[labels]", f"share = {told.mean():.6g}"]
    known = told & np.isfinite(log.taught_s) & (log.taught_s > log.time)
    if known.any():
        delays = np.log(log.taught_s[known] - log.time[known])
        lines += [
            f"delay_s = {min(math.exp(float(np.median(delays))), 30 * 86_400.0):.6g}",
            f"delay_spread = {min(float(delays.std()), 3.0):.4g}",
        ]
    return lines


def _backends(log: Log, notes: list[str]) -> list[Fitted]:
    told = np.isfinite(log.quality)
    replay = Replay(log) if told.sum() >= LABELS_MIN else None
    found = []
    for at, name in enumerate(log.arms):
        drawn = log.arm == at
        if not drawn.any():
            notes.append(f"{name} was never drawn and is left out")
            continue
        quality, ends = _quality(log, replay, name, told & drawn, notes)
        times = np.maximum(log.latency_s[drawn], 1e-6)
        spread = float(np.log(times).std())
        quantiles = np.quantile(times, QUANTILES) if len(times) >= CALLS_MIN else []
        found.append(
            Fitted(
                name,
                int(drawn.sum()),
                float(log.cost_usd[drawn].mean()),
                quality,
                ends,
                float(np.median(times)),
                min(spread, 3.0),
                tuple(map(float, quantiles)),
            )
        )
    if not log.priced:
        notes.append("the journal has no costs; the backends' prices are 0")
    return found


def _quality(
    log: Log, replay: Replay | None, name: str, told: Floats, notes: list[str]
) -> tuple[float, tuple[float, float]]:
    """Return a backend's quality on all requests; where replay has none, on those it answered."""
    answer = replay.ask(parse(f"fixed:arm={name}")).quality if replay is not None else None
    if isinstance(answer, Estimate):
        return answer.value, (answer.low, answer.high)
    if not told.any():
        notes.append(f"{name} has no labels; its quality is set to 0.5: write a better one")
        return 0.5, (0.0, 1.0)
    mean = float(log.quality[told].mean())
    low, high = getattr(answer, "low", 0.0), getattr(answer, "high", 1.0)
    notes.append(
        f"{name}: its quality is that of the {int(told.sum())} labelled answers it gave; on all "
        f"requests it lies between {low:.3f} and {high:.3f}"
    )
    return mean, (min(low, mean), max(high, mean))


def _shares(log: Log, backends: tuple[Fitted, ...]) -> str:
    return ", ".join(f"{json.dumps(one.name)} = {one.calls / len(log):.6g}" for one in backends)


def _table(one: Fitted) -> list[str]:
    low, high = one.ends
    lines = [
        "",
        "[[backends]]",
        f"name = {json.dumps(one.name)}",
        f"price = {{ per_request_usd = {one.cost_usd:.9f} }}",
        f"quality = {one.quality:.6f}  # {low:.4f} to {high:.4f}; {one.calls:,} calls",
        f"latency_s = {one.latency_s:.6g}",
        f"latency_spread = {one.latency_spread:.4g}",
        f"servers = {SERVERS}",
    ]
    if one.latency_quantiles_s:
        values = ", ".join(f"{value:.5g}" for value in one.latency_quantiles_s)
        lines.append(f"latency_quantiles_s = [{values}]")
    return lines
