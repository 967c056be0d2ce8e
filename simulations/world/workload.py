"""The workload: all requests of a scenario, drawn in advance from its seed.

Every random draw that a request will need is made here, independently of later choices: how hard it
is, whether each backend would be right, how long each would take, whether it gets feedback. So two
policies in the same scenario see the same requests with the same draws, and differ only by their
choices (common random numbers).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows
from tollway.simulations.replay.tables import Table, read
from tollway.simulations.world.scenario import REQUESTS_MAX, ByClass, Scenario, Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP_S = 10.0  # the rate is constant within a step; far shorter than any burst or hour
HARD_MAX = 2.0  # hardness is clipped to so many standard deviations


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests in order of arrival; each field has one entry per request.

    at_s: seconds from the start. tenant, kind, shown: indices of tenant, class, and the class that
    the policy sees. hard: hardness above its class's typical request, in standard deviations;
    `sees` is what the policy sees of it. tokens: tokens of the prompt. luck: one number in [0, 1)
    for all backends; a backend is right if it is below its quality. slow, wordy: deviation of
    latency and output from their medians, per backend, in standard deviations. told: whether there
    is feedback, after `delay_s`; `lies` whether it says the opposite. gateway: which gateway
    receives it. row: its row in the table, if the scenario has one.
    """

    at_s: Floats
    tenant: Ints
    kind: Ints
    shown: Ints
    hard: Floats
    sees: Floats
    tokens: Floats
    luck: Floats
    slow: Floats
    wordy: Floats
    sure: Floats
    labelled: NDArray[np.bool_]
    delay_s: Floats
    lies: NDArray[np.bool_]
    gateway: Ints
    row: Ints
    tenants: tuple[str, ...]
    kinds: tuple[str, ...]
    table: Table | None

    def __len__(self) -> int:
        return len(self.at_s)


def draw(scenario: Scenario, seed: int) -> Requests:
    """Draw a scenario's requests."""
    rng = np.random.default_rng([seed, 0x70_11])
    workload, labels = scenario.workload, scenario.labels
    at_s, tenant, tenants = _arrivals(scenario, rng)
    count, arms = len(at_s), len(scenario.backends)
    kinds, kind = _kinds(workload, count, rng)
    unclear = rng.random(count) < workload.unclear
    shown = np.where(unclear, rng.integers(len(kinds), size=count), kind)
    hard = np.clip(rng.standard_normal(count), -HARD_MAX, HARD_MAX)
    table, row = _table(scenario, count, rng)
    if table is not None:
        kinds, kind = table.groups, table.group[row]
        shown = kind
    spread = labels.delay_spread * rng.standard_normal(count)
    lies = rng.random(count) < labels.wrong
    if labels.liar is not None:
        lies |= tenant == tenants.index(labels.liar)
    return Requests(
        at_s=at_s,
        tenant=tenant,
        kind=kind,
        shown=shown,
        hard=hard,
        sees=hard + 0.5 * rng.standard_normal(count),
        tokens=np.exp(
            math.log(workload.prompt_tokens) + workload.prompt_spread * rng.standard_normal(count)
        ),
        luck=rng.random(count),
        slow=rng.standard_normal((count, arms)),
        wordy=rng.standard_normal((count, arms)),
        sure=rng.standard_normal(count),
        labelled=rng.random(count) < labels.share,
        delay_s=labels.delay_s * np.exp(spread),
        lies=lies,
        gateway=rng.integers(scenario.gateways, size=count),
        row=row,
        tenants=tenants,
        kinds=kinds,
        table=table,
    )


def _kinds(
    workload: Workload, count: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], Ints]:
    names = tuple(workload.classes)
    shares = np.array([float(workload.classes[name]) for name in names])
    return names, rng.choice(len(names), size=count, p=shares / shares.sum())


def _table(scenario: Scenario, count: int, rng: np.random.Generator) -> tuple[Table | None, Ints]:
    path = scenario.workload.table
    if path is None:
        return None, np.zeros(count, np.int64)
    table = read(path, [backend.name for backend in scenario.backends])
    return table, rng.integers(len(table), size=count)


def _arrivals(scenario: Scenario, rng: np.random.Generator) -> tuple[Floats, Ints, tuple[str, ...]]:
    workload = scenario.workload
    if workload.journal is not None:
        return _replayed(workload.journal, scenario.seconds)
    edges = np.arange(0.0, scenario.seconds, STEP_S)
    widths = np.minimum(STEP_S, scenario.seconds - edges)
    usual = _usual(workload, scenario.start_s, edges + widths / 2)
    of_all = np.ones(len(edges))
    of_one: dict[str, Floats] = {}
    for burst in workload.bursts:
        inside = (edges >= burst.at_h * 3600) & (edges < (burst.at_h + burst.for_h) * 3600)
        if burst.tenant is None:
            of_all = np.where(inside, of_all * burst.times, of_all)
        else:
            before = of_one.get(burst.tenant, np.zeros(len(edges)))
            of_one[burst.tenant] = before + inside * float(burst.times)
    names = [f"t{number + 1}" for number in range(workload.tenants)]
    shares = np.arange(1.0, workload.tenants + 1) ** -workload.zipf
    at_s = _by_chance(usual * of_all, edges, widths, rng)
    tenant = rng.choice(workload.tenants, size=len(at_s), p=shares / shares.sum())
    for name, times in of_one.items():
        more = _by_chance(usual * times, edges, widths, rng)
        number = names.index(name) if name in names else len(names)
        names += [name] if number == len(names) else []
        at_s = np.concatenate([at_s, more])
        tenant = np.concatenate([tenant, np.full(len(more), number)])
    order = np.argsort(at_s, kind="stable")
    return at_s[order], tenant[order], tuple(names)


def _usual(workload: Workload, start_s: float, at_s: Floats) -> Floats:
    """Return the request rate at given times, in requests per second."""
    mean = workload.requests_per_day / 86_400
    if workload.arrivals != "diurnal":
        return np.full(len(at_s), float(mean))
    hour = ((start_s + at_s) % 86_400) / 3600
    swing = workload.swing * np.cos((hour - workload.peak_hour) * (2 * math.pi / 24))
    rate: Floats = mean * (1.0 + swing)
    return rate


def _by_chance(rate: Floats, edges: Floats, widths: Floats, rng: np.random.Generator) -> Floats:
    """Draw a Poisson process whose rate is constant in each step."""
    counts = rng.poisson(rate * widths)
    at = np.repeat(np.arange(len(edges)), counts)
    times_s: Floats = np.sort(edges[at] + widths[at] * rng.random(len(at)))
    return times_s


def _replayed(folder: Path, seconds: float) -> tuple[Floats, Ints, tuple[str, ...]]:
    """Return the arrival times of a journal's requests, from its first, and their tenants."""
    times: list[float] = []
    names: list[str] = []
    for path in segments(folder):
        for row in rows(path):
            if row["kind"] == "decision" and row["stage"] == 0 and len(times) < REQUESTS_MAX:
                times.append(row["time"])
                names.append(row["tenant"])
    if not times:
        why = "has no decisions; name the folder of a journal"
        raise ConfigError([Problem(str(folder), "workload.journal", why)])
    order = np.argsort(times, kind="stable")
    at_s = np.array(times)[order] - min(times)
    tenants, index = np.unique(np.array(names)[order], return_inverse=True)
    included = at_s < seconds
    return at_s[included], index[included].astype(np.int64), tuple(map(str, tenants))


def quality_of(quality: ByClass, kinds: tuple[str, ...]) -> Floats:
    """Return the quality of a backend by class."""
    by_class = quality if isinstance(quality, dict) else dict.fromkeys(kinds, quality)
    return np.array([float(by_class[kind]) for kind in kinds])
