"""Running scenarios: the same bytes for the same seed, nothing lost, money within its limits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows
from tollway.simulations.world import engine, grid, results, scenario_file
from tollway.simulations.world.callback_path import CallbackPath, Ended

pytestmark = pytest.mark.integration

SMALL = """
name = "small"
hours = 1
pacing_interval_s = 10
[workload]
requests_per_day = 40_000
classes = { easy = 0.7, hard = 0.3 }
tenants = 3
[labels]
share = 0.3
[[backends]]
name = "cheap"
price = { per_request_usd = 0.0001 }
quality = { easy = 0.9, hard = 0.4 }
[[backends]]
name = "dear"
price = { per_request_usd = 0.001 }
quality = { easy = 0.95, hard = 0.9 }
latency_s = 0.2
"""
BUDGET = """
[[budgets]]
name = "hour"
limit_usd = 0.5
window = "hour"
pacing = "even"
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with grid.quiet():
        yield


def run(text: str, changes: dict[str, Any] | None = None, **more: Any) -> engine.Run:
    return engine.run(scenario_file.parse(text, changes=changes), **more)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (run(SMALL + BUDGET, seed=3, journal=tmp_path / name) for name in ("one", "two"))
    assert results.to_json(results.summarise(one)) == results.to_json(results.summarise(two))
    journals = [(segments(tmp_path / name)[0]).read_bytes() for name in ("one", "two")]
    assert journals[0] == journals[1]
    assert len(journals[0]) > 100_000


OUTAGE = """
[[changes]]
at_h = 0.2
backend = "dear"
errors = 0.3
[[changes]]
at_h = 0.4
backend = "dear"
up = false
[[changes]]
at_h = 0.6
backend = "dear"
errors = 0.0
up = true
"""


@pytest.mark.parametrize("cascade", [False, True])
def test_callbacks_give_the_bytes_that_coroutines_give(
    cascade: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = SMALL.replace("hours = 1\n", "hours = 0.7\ngateways = 2\nledger_ms = 3\n")
    text = two + "servers = 2\nqueue = 3\n" + BUDGET.replace("0.5", "5.0") + OUTAGE
    changes = {"route.cascade": cascade, "workload.requests_per_day": 60_000}
    found = run(text, changes, seed=5, journal=tmp_path / "callbacks")

    def answer(path: CallbackPath, inference: InferenceRequest, ended: Ended, _: float) -> None:
        path._loop.strand(path._driver.answer(inference), ended)

    monkeypatch.setattr(CallbackPath, "answer", answer)
    again = run(text, changes, seed=5, journal=tmp_path / "coroutines")
    assert results.to_json(results.summarise(found)) == results.to_json(results.summarise(again))
    one, two = (segments(tmp_path / name) for name in ("callbacks", "coroutines"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert found.fallback.any()


def test_another_seed_gives_another_run() -> None:
    one, two = (run(SMALL, seed=seed) for seed in (1, 2))
    assert results.to_json(results.summarise(one)) != results.to_json(results.summarise(two))


def test_every_request_ends_once_and_is_journalled(tmp_path: Path) -> None:
    found = run(SMALL + BUDGET, journal=tmp_path)
    assert (found.arm != engine.NONE).all()
    written = [row for path in segments(tmp_path) for row in rows(path)]
    attempts = [row for row in written if row["kind"] == "attempt"]
    assert len(attempts) == int((found.arm >= 0).sum())
    assert sum(row["cost_nano"] for row in attempts) == round(found.cost_usd.sum() * 1e9)
    fed = sum(row["kind"] == "feedback" for row in written)
    assert fed == found.labels > 100


def test_what_was_spent_is_what_the_ledger_has_and_within_its_limit() -> None:
    found = run(SMALL + BUDGET)
    (window,) = [w for w in found.budgets if w["spent_usd"] > 0]
    assert window["spent_usd"] == pytest.approx(found.cost_usd.sum(), abs=1e-9)
    assert window["spent_usd"] <= window["limit_usd"] == 0.5


def test_a_budget_that_is_too_small_refuses_and_is_never_overspent() -> None:
    policy = {"route.policy": "fixed", "route.policy_options": {"arm": "dear"}}
    found = run(SMALL + BUDGET, policy)
    assert all(window["spent_usd"] <= window["limit_usd"] for window in found.budgets)
    assert (found.arm == engine.REFUSED).mean() > 0.4


def test_policies_get_the_same_requests_with_the_same_random_outcomes() -> None:
    cheap, dear = (
        run(SMALL, {"route.policy": "fixed", "route.policy_options": {"arm": arm}})
        for arm in ("cheap", "dear")
    )
    assert (cheap.requests.luck == dear.requests.luck).all()
    # With common random outcomes the better backend is right wherever the cheap one is.
    assert not (cheap.right & ~dear.right).any()


def test_a_policy_learns_which_requests_need_the_dear_backend() -> None:
    found = run(SMALL, {"hours": 4, "budgets": [_day(12)], "labels.share": 0.5})
    late = slice(len(found.arm) // 2, None)
    hard = found.requests.shown[late] == 1
    dear = found.arm[late] == 1
    assert dear[hard].mean() > 3 * dear[~hard].mean()


def _day(limit_usd: float) -> dict[str, Any]:
    return {"name": "day", "limit_usd": limit_usd, "window": "day", "pacing": "even"}


def test_fixed_policies_have_no_regret_for_being_the_only_choice() -> None:
    head, _, dear = SMALL.split("[[backends]]")
    total = results.summarise(run(f"{head}[[backends]]{dear}"))["total"]
    assert total["regret_points"] == pytest.approx(0.0, abs=1e-6)
    assert total["over_hull_points"] == pytest.approx(0.0, abs=1e-6)


def test_the_worse_of_two_free_choices_costs_its_difference() -> None:
    policy = {"route.policy": "fixed", "route.policy_options": {"arm": "cheap"}}
    found = run(SMALL, policy)
    total = results.summarise(found)["total"]
    truth = found.truth.quality
    assert total["regret_points"] == pytest.approx(
        100 * (truth[:, 1] - truth[:, 0]).mean(), abs=0.01
    )


def test_an_outage_goes_to_the_fallback_and_ends_with_it() -> None:
    text = SMALL + (
        '[[changes]]\nat_h = 0.25\nbackend = "dear"\nup = false\n'
        '[[changes]]\nat_h = 0.5\nbackend = "dear"\nup = true\n'
    )
    policy = {"route.policy": "fixed", "route.policy_options": {"arm": "dear"}}
    found = run(text, policy)
    at_h = found.requests.at_s / 3600
    assert (found.arm >= 0).all()
    assert (found.arm[(at_h > 0.25) & (at_h < 0.5)] == 0).all()
    assert (found.arm[at_h > 0.52] == 1).all()


def test_feedback_hours_late_is_still_learned_from() -> None:
    found = run(SMALL, {"labels.delay_s": 1800, "labels.delay_spread": 0.1})
    told = int(found.requests.labelled.sum())
    assert 0.3 * told < found.labels < 0.7 * told


def test_a_new_price_is_charged_from_then_on() -> None:
    text = SMALL + (
        '[[changes]]\nat_h = 0.5\nbackend = "dear"\nprice = { per_request_usd = 0.0005 }\n'
    )
    policy = {"route.policy": "fixed", "route.policy_options": {"arm": "dear"}}
    found = run(text, policy)
    cost = np.unique(found.cost_usd[found.requests.at_s > 1810])
    assert cost == pytest.approx([0.0005])


def test_gateways_that_are_cut_off_spend_their_lease_and_no_more_than_the_limit() -> None:
    two = SMALL.replace("hours = 1\n", "hours = 0.1\ngateways = 2\nledger_ms = 40\n")
    cut = "[[changes]]\nat_h = 0.03\ncut = [1]\n[[changes]]\nat_h = 0.06\ncut = []\n"
    found = run(two + BUDGET.replace("0.5", "0.05") + cut)
    (window,) = [w for w in found.budgets if w["spent_usd"] > 0]
    assert window["spent_usd"] <= window["limit_usd"]
    at_s, lost = found.requests.at_s, found.arm < 0
    away = (at_s > 0.04 * 3600) & (at_s < 0.06 * 3600)
    assert lost[away & (found.requests.gateway == 1)].any()
    assert not lost[away & (found.requests.gateway == 0)].all()
