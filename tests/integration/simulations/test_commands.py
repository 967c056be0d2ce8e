"""`tollway simulate`: what it prints, writes and refuses."""

import json
import re
from pathlib import Path

import pytest

from tollway.gateway.cli.main import main
from tollway.simulations.world import commands as world_commands

pytestmark = pytest.mark.integration

TINY = """
name = "tiny"
about = "Small & quick."
hours = 0.1
pacing_interval_s = 10
[workload]
requests_per_day = 50_000
[[backends]]
name = "cheap"
price = { per_request_usd = 0.0001 }
quality = 0.7
[[backends]]
name = "dear"
price = { per_request_usd = 0.001 }
quality = 0.9
[[budgets]]
name = "hour"
limit_usd = 0.1
window = "hour"
[[changes]]
at_h = 0.05
says = "dear is down"
backend = "dear"
up = false
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def run(*argv: object) -> int:
    return main(["simulate", *map(str, argv)], {})


@pytest.mark.parametrize("command", [[], ["run"], ["compare"], ["sweep"]])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*command, "--help")
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "tollway simulate" in said
    assert "exit codes" in said


def test_run_prints_a_table_and_writes_results_and_a_page(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", tmp_path / "a.json", "--html", tmp_path / "a.html"]
    assert run("run", tiny, *files, "--journal", tmp_path / "journal") == 0
    said = capsys.readouterr().out
    assert "dear is down" in said and "regret" in said and "OVERSPENT" in said
    total = json.loads((tmp_path / "a.json").read_text())["total"]
    assert total["requests"] > 150
    page = (tmp_path / "a.html").read_text()
    assert "Small &amp; quick." in page and "<svg" in page
    assert not re.search(r"<script|https?://", page)
    assert (tmp_path / "journal" / "journal-s1g0.jsonl").stat().st_size > 10_000


def test_the_same_run_writes_the_same_bytes(tiny: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("run", tiny, "--json", tmp_path / f"{name}.json", "--html", tmp_path / f"{name}.html")
    for kind in ("json", "html"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_run_takes_changes_a_seed_and_a_policy(tiny: str, tmp_path: Path) -> None:
    changes = ["--set", "backends.dear.quality=1", "--set", "budgets.hour.limit_usd=5"]
    more = ["--seed", 5, "--policy", "fixed:arm=dear", "--json", tmp_path / "a.json"]
    assert run("run", tiny, *changes, *more) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["seed"] == 5
    assert found["phases"][0]["quality"] == 1.0


def test_several_runs_are_one_line_each(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", tiny, "--seeds", 2, "--workers", 1, "--markdown") == 0
    told = capsys.readouterr()
    assert told.out.startswith("| scenario | regret, points |")
    assert told.err.count("seed") == 2


def test_the_scenarios_that_ship_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--list") == 0
    assert "price-cut" in capsys.readouterr().out


def test_compare_pairs_policies_by_seed(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = ["fixed:arm=cheap", "fixed:arm=dear", "weighted:cheap=0.5,dear=0.5"]
    files = ["--out", tmp_path / "out", "--html", tmp_path / "c.html", "--json", tmp_path / "c"]
    assert run("compare", tiny, "--policies", *policies, "--seeds", 2, "--workers", 1, *files) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:]] == policies
    assert "±" in said[2]
    assert len(json.loads((tmp_path / "c").read_text())) == 6
    assert (tmp_path / "out" / "results.parquet").exists()
    assert "Compared with fixed:arm=cheap" in (tmp_path / "c.html").read_text()


def test_sweep_goes_through_the_grid(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ["--grid", "labels.share=0.1,1", "--grid", "budgets.hour.limit_usd=0.05,0.2"]
    more = ["--seeds", 1, "--workers", 1, "--html", tmp_path / "s.html"]
    assert run("sweep", tiny, *axes, *more) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said[1:]] == [
        ["0.1", "0.05"],
        ["0.1", "0.2"],
        ["1", "0.05"],
        ["1", "0.2"],
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "stedy"], "did you mean 'steady'"),
        (["run", "TINY", "--set", "labels.shar=1"], "unknown key; did you mean 'share'"),
        (["run", "TINY", "--set", "labels"], "write it like --set labels.share=0.2"),
        (["run", "TINY", "--policy", "fixd"], "did you mean 'fixed'"),
        (["run", "TINY", "--policy", "fixed:dear"], "write options like fixed:arm=large"),
        (["sweep", "TINY", "--grid", "labels.share"], "write it like --grid"),
        (["run"], "name a scenario or add --all"),
    ],
)
def test_what_is_wrong_is_said_and_ends_with_2(
    tiny: str, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*[tiny if word == "TINY" else word for word in argv]) == 2
    assert said in capsys.readouterr().err


def test_a_policy_is_read_with_its_options() -> None:
    assert world_commands.policy("lagrangian:explore_scale=1,head=vowpal") == {
        "route.policy": "lagrangian",
        "route.cascade": False,
        "route.policy_options": {"explore_scale": 1, "head": "vowpal"},
    }
