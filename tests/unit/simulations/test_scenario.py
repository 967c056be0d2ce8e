"""Scenarios: the shipped ones load, and mistakes are reported with a remedy."""

from pathlib import Path
from typing import Any

import pytest

from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.storage.journal import Journal
from tollway.simulations.world import scenario_file
from tollway.simulations.world.truth import reveal
from tollway.simulations.world.workload import draw

WHOLE = """
name = "whole"
hours = 2
[workload]
classes = { easy = 1, hard = 1 }
[[backends]]
name = "a"
price = { per_request_usd = 0.001 }
[[backends]]
name = "b"
price = { per_request_usd = 0.002 }
quality = { easy = 0.9, hard = 0.5 }
"""

REQUIRED = {
    *("steady", "price-cut", "silent-quality-drop", "outage-and-return", "black-friday"),
    *("new-arm", "budget-cut", "noisy-labels", "delayed-labels", "adversarial-tenant"),
    "two-regions",
}


@pytest.mark.parametrize("name", scenario_file.shipped())
def test_what_ships_can_be_read_and_says_what_it_is(name: str) -> None:
    found = scenario_file.load(name)
    assert found.name == name
    assert len(found.about) > 40


def test_all_that_is_promised_ships() -> None:
    assert set(scenario_file.shipped()) >= REQUIRED


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("labels.share", 2, "labels.share = 2: must be at most 1; write it like 0.1"),
        ("route.polcy", "x", "route.polcy: unknown key; did you mean 'policy'?"),
        ("route.policy", "fixd", "did you mean 'fixed'?"),
        ("route.policy", "fixed", "route.policy_options: policy fixed needs the option arm"),
        ("route.baseline", "c", 'route.baseline = "c": is not among the backends'),
        ("route.objective", "min_cost", "requires accuracy_floor; write it like"),
        ("backends.b.quality.esy", 0.3, "backends[1].quality.esy: is not among workload.classes"),
        ("backends.b.quality", {"easy": 0.5}, "backends[1].quality.hard: is missing"),
        ("backends.b.name", "a", 'backends[1].name = "a": is the name of two'),
        ("backends.b.price", {"per_request": 1}, "backends[1].price"),
        ("workload.arrivals", "journal", "workload.journal: goes with arrivals"),
        ("workload.requests_per_day", 1e9, "the maximum is 20,000,000"),
        ("labels.liar", "eve", 'labels.liar = "eve": is neither one of the tenants'),
        ("changes", [{"at_h": 1, "up": False}], "changes[0].backend: is missing"),
        ("changes", [{"at_h": 9, "backend": "a"}], "changes[0].at_h = 9.0: must be before the end"),
        ("changes", [{"at_h": 1, "budget": "x"}], "changes[0].budget: goes with limit_usd"),
        ("changes", [{"at_h": 1, "cut": [1]}], "changes[0].cut = [1]: names a gateway"),
        ("backends.c.from_h", 1, "there is no member 'c'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_remedy(key: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario_file.parse(WHOLE, changes={key: value})
    assert said in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        scenario_file.parse(WHOLE, changes={"labels.share": 2, "hours": 0, "sed": 1})
    assert len(caught.value.problems) == 3


def test_errors_between_tables_are_said_beside_those_of_single_values() -> None:
    planted = {
        "labels.share": 2,
        "workload.sed": 1,
        "labels.liar": "eve",
        "changes": [{"at_h": 0.5, "backend": "nobody", "up": False}],
        "route.policy_options": {"gama": 1},
    }
    with pytest.raises(ConfigError) as caught:
        scenario_file.parse(WHOLE, changes=planted)
    keys = [problem.key for problem in caught.value.problems]
    assert len(keys) == 5
    for key in ("labels.share", "workload.sed", "labels.liar", "changes[0].backend"):
        assert key in keys
    assert any(key.startswith("route.policy_options") for key in keys)


@pytest.mark.parametrize(
    ("planted", "keys"),
    [
        (
            {
                "hours": 0,
                "labels.liar": "eve",
                "backends.b.quality.esy": 0.3,
                "route.baseline": "z",
            },
            {"hours", "labels.liar", "backends[1].quality.esy", "route.baseline"},
        ),
        (
            {"backends.a.price": 7, "labels.liar": "eve", "route.baseline": "z", "labels.share": 2},
            {"backends[0].price", "labels.liar", "route.baseline", "labels.share"},
        ),
        (
            {
                "backends.a.name": 7,
                "labels.liar": "eve",
                "hours": -1,
                "backends.b.quality.esy": 0.3,
            },
            {"backends[0].name", "labels.liar", "hours", "backends[1].quality.esy"},
        ),
        (
            {
                "workload.classes": {"easy": -1, "hard": 1},
                "labels.liar": "eve",
                "route.policy_options": {"gama": 1},
                "route.objective": "min_cost",
            },
            {
                "workload.classes.easy",
                "labels.liar",
                "route.policy_options",
                "route.objective",
            },
        ),
        (
            {
                "budgets": [{"name": "d", "limit_usd": -1, "window": "dy"}],
                "labels.liar": "eve",
                "changes": [{"at_h": 1, "budget": "z", "limit_usd": 1}],
            },
            {"budgets[0].limit_usd", "budgets[0].window", "labels.liar", "changes[0].budget"},
        ),
    ],
)
def test_all_of_several_planted_mistakes_are_told(planted: dict[str, Any], keys: set[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario_file.parse(WHOLE, changes=planted)
    assert {problem.key for problem in caught.value.problems} == keys


def test_changes_that_cannot_be_made_are_told_beside_the_other_mistakes() -> None:
    planted = {"backends.c.from_h": 1, "backends.d.from_h": 1, "labels.share": 2, "hours.x": 1}
    with pytest.raises(ConfigError) as caught:
        scenario_file.parse(WHOLE, changes=planted)
    assert {problem.key for problem in caught.value.problems} == set(planted)


def test_an_invalid_name_is_not_reported_again_where_it_is_mentioned() -> None:
    planted = {"backends.a.name": 7, "changes": [{"at_h": 0.5, "backend": "a", "up": False}]}
    with pytest.raises(ConfigError) as caught:
        scenario_file.parse(WHOLE, changes=planted)
    assert [problem.key for problem in caught.value.problems] == ["backends[0].name"]


def test_an_unknown_scenario_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'steady'"):
        scenario_file.load("stedy")


def test_arrivals_follow_the_rate_the_day_and_the_bursts() -> None:
    burst = {"at_h": 1, "for_h": 0.5, "times": 10}
    changes = {"workload.requests_per_day": 240_000, "workload.bursts": [burst], "hours": 24}
    at_h = draw(scenario_file.parse(WHOLE, changes=changes), 1).at_s / 3600
    assert len(at_h) == pytest.approx(240_000 + 9 * 5000, rel=0.02)
    assert ((at_h >= 1) & (at_h < 1.5)).sum() == pytest.approx(50_000, rel=0.03)
    daily = {"workload.requests_per_day": 240_000, "workload.arrivals": "diurnal", "hours": 24}
    at_h = draw(scenario_file.parse(WHOLE, changes=daily), 1).at_s / 3600
    peak, night = ((at_h >= 13) & (at_h < 15)).sum(), ((at_h >= 1) & (at_h < 3)).sum()
    assert peak / night == pytest.approx(1.6 / 0.4, rel=0.1)


def test_tenants_call_by_zipf() -> None:
    changes = {"workload.tenants": 10, "workload.zipf": 1.0, "hours": 24}
    tenant = draw(scenario_file.parse(WHOLE, changes=changes), 1).tenant
    first, second = (tenant == 0).sum(), (tenant == 1).sum()
    assert first / second == pytest.approx(2.0, rel=0.1)


def test_a_journals_arrivals_are_replayed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for time, tenant in ((100.0, "x"), (103.5, "y"), (101.0, "x"), (9e9, "z")):
        row = {"kind": "decision", "stage": 0, "time": time, "tenant": tenant}
        journal.append({**row, "id": "a", "filling": "." * 100})
    journal.close()
    changes = {"workload.arrivals": "journal", "workload.journal": str(tmp_path)}
    found = draw(scenario_file.parse(WHOLE, changes=changes), 1)
    assert found.at_s.tolist() == [0.0, 1.0, 3.5]
    assert [found.tenants[at] for at in found.tenant] == ["x", "x", "y"]


def test_a_table_says_what_each_backend_answers_and_costs(tmp_path: Path) -> None:
    rows = [
        '{"group": "math", "prompt": "1+1?", "q": {"a": 1, "b": 0.5}, "c": {"a": 0.001, "b": 2}}',
        '{"group": "law", "prompt": "Is it?", "q": {"a": 0, "b": 1}, "c": {"a": 0.001, "b": 4}}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    price = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 10}
    changes = {"workload.table": "t.jsonl", "backends.b.price": price, "backends.b.quality": 0.5}
    found = scenario_file.parse(WHOLE, folder=tmp_path, changes=changes)
    requests = draw(found, 1)
    truth = reveal(found, requests)
    law = requests.row == 1
    assert set(truth.quality[law, 0]) == {0.0}
    assert truth.cost_usd[law, 1] == pytest.approx(4.0)
    assert truth.cost_usd[:, 0] == pytest.approx(0.001)


def test_a_table_that_lacks_a_backend_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"q": {"a": 1, "bb": 1}, "c": {"a": 1, "b": 1}}\n')
    changes = {"workload.table": "t.jsonl", "backends.b.quality": 0.5}
    found = scenario_file.parse(WHOLE, folder=tmp_path, changes=changes)
    with pytest.raises(ConfigError, match="line 1 has no number for 'b' in \"q\"; did you mean"):
        draw(found, 1)
