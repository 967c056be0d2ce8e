"""Chains of tiers: caches in a row, queues, and the page that shows a plan."""

import re
import shlex
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollway.gateway.cli.main import main
from tollway.simulations.capacity.tiers import (
    BadTiers,
    Popularity,
    Tier,
    Workload,
    planned,
    read,
)

PAGE = Path(__file__).parents[3] / "docs" / "very-large-loads.md"


def simulated(objects: int, zipf: float, sizes: list[int], requests: int) -> list[float]:
    """Return the hit rate of each LRU cache in a row, after a warm-up."""
    rng = np.random.default_rng(1)
    weights = 1.0 / np.arange(1, objects + 1) ** zipf
    caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in sizes]
    hits, asked = [0] * len(sizes), [0] * len(sizes)
    stream = rng.choice(objects, size=requests, p=weights / weights.sum()).tolist()
    for number, one in enumerate(stream):
        counts = number >= requests // 2
        for at, (cache, size) in enumerate(zip(caches, sizes, strict=True)):
            asked[at] += counts
            if one in cache:
                cache.move_to_end(one)
                hits[at] += counts
                break
            cache[one] = None
            if len(cache) > size:
                cache.popitem(last=False)
    return [hit / count for hit, count in zip(hits, asked, strict=True)]


@pytest.mark.parametrize("zipf", [0.7, 1.0])
def test_caches_in_a_row_find_what_simulated_ones_find(zipf: float) -> None:
    popularity = Popularity(5000, zipf)
    computed = [popularity.found(200), popularity.found(1000)]
    first, second = simulated(5000, zipf, [200, 1000], 60_000)
    assert computed[0] == pytest.approx(first, abs=0.01)
    # A second cache sees a stream that the first has smoothed: Che's approximation is coarser.
    assert computed[1] == pytest.approx(second, abs=0.05)


def test_a_cache_of_everything_finds_everything() -> None:
    popularity = Popularity(100, 1.0)
    assert popularity.found(100) == 1.0
    assert popularity.found(10) == 0.0


def one(**more: Any) -> Tier:
    return Tier("t", **{"service_ms": 10.0, "answers": 1.0, "network_ms": 0.0, **more})


def test_a_queue_of_one_place_waits_as_the_formula_says() -> None:
    # M/M/1: times are exponential with mean S / (1 - busy).
    plan = planned(Workload(rate=50.0, cacheable=0.0), [one(busy_max=0.5)])
    assert (plan.tiers[0].replicas, plan.tiers[0].busy) == (2, 0.5)
    assert plan.p50_ms == pytest.approx(20.0 * np.log(2), rel=0.03)
    assert plan.p99_ms == pytest.approx(20.0 * np.log(100), rel=0.05)


def test_a_shared_queue_waits_less_than_queues_of_their_own() -> None:
    workload = Workload(rate=1000.0, cacheable=0.0)
    own, shared = (
        planned(workload, [one(queue=queue, busy_max=0.8)]) for queue in ("own", "shared")
    )
    assert shared.p99_ms < own.p99_ms
    assert shared.tiers[0].replicas == own.tiers[0].replicas


def test_batches_need_fewer_replicas() -> None:
    workload = Workload(rate=10_000.0, cacheable=0.0)
    alone, joined = (planned(workload, [one(batch=batch)]) for batch in (1, 16))
    assert joined.tiers[0].replicas < alone.tiers[0].replicas / 10


def test_hashing_lets_replicas_keep_different_answers() -> None:
    workload = Workload(rate=10_000.0, objects=1e6)
    tiers = [Tier("g", 1.0, keeps=1000.0, hashed=hashed) for hashed in (False, True)]
    same, apart = (planned(workload, [tier, one()]) for tier in tiers)
    assert apart.tiers[0].ends > same.tiers[0].ends + 0.1
    assert apart.tiers[1].arriving < same.tiers[1].arriving


def test_the_bottlenecks_are_named() -> None:
    cheap = Tier("cheap", 0.1, usd_per_hour=0.01, busy_max=0.3)
    slow = one(usd_per_hour=1.0, busy_max=0.6)
    plan = planned(Workload(rate=1000.0), [cheap, slow])
    assert (plan.costliest.tier.name, plan.slowest, plan.fullest.tier.name) == ("t", "t", "t")
    assert plan.usd_per_million == pytest.approx(plan.usd_month / (1000 * 730 * 3600) * 1e6)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "rate"),
        ({"workload": {"rate": 1}}, r"no \[\[tiers\]\]"),
        ({"workload": {"rate": 1, "x": 1}}, "x is unknown"),
        ({"workload": {"rate": "a"}}, "must be a float"),
        ({"workload": {"rate": 1}, "tiers": [{"name": "a"}]}, "service_ms"),
        ({"workload": {"rate": 1}, "tiers": [{"name": "a", "service_ms": 0}]}, "above 0"),
        ({"workload": {"rate": 1}, "tiers": [{"name": "a", "service_ms": 1, "queue": "x"}]}, "own"),
        ({"other": 1}, "unknown"),
    ],
)
def test_a_description_that_is_wrong_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(BadTiers, match=message):
        planned(*read(document))


def shown() -> list[tuple[str, str]]:
    """Return the commands of the page, each with what it prints."""
    form = r"```sh\n(tollway .*?)\n```.*?```text\n(.*?)```"
    return re.findall(form, PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(("command", "printed"), shown())
def test_the_page_shows_what_its_commands_print(
    command: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.strip() == printed.strip()


def test_the_page_shows_four_plans() -> None:
    assert len(shown()) == 4


def test_a_wrong_value_on_the_command_line_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["simulate", "capacity", "--tiers", "million", "--set", "CDN.x=1"]) == 1
    assert "there is no such key" in capsys.readouterr().err
    assert main(["simulate", "capacity"]) == 2
