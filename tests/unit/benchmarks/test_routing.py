"""The routing benchmark reads any table of its two forms, and its bounds are right."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))

from choosing import bounds, figures, tables  # noqa: E402

QUALITY, COST = np.array([0.5, 0.6, 0.9]), np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("budget", "best"), [(1.0, 0.5), (2.0, 0.7), (2.5, 0.8), (3.0, 0.9), (9.0, 0.9)]
)
def test_the_hull_is_the_best_mix_of_arms(budget: float, best: float) -> None:
    assert bounds.hull(QUALITY, COST, budget) == pytest.approx(best)
    assert bounds.hull_cost(QUALITY, COST, best) == pytest.approx(min(budget, 3.0))


def test_nothing_is_to_be_had_below_the_cheapest() -> None:
    assert np.isnan(bounds.hull(QUALITY, COST, 0.9))
    assert np.isnan(bounds.best_fixed(QUALITY, COST, 0.9))
    assert np.isnan(bounds.hull_cost(QUALITY, COST, 0.95))


def test_the_clairvoyant_policy_mixes_at_the_step() -> None:
    quality = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    cost = np.tile([0.0, 1.0], (4, 1))
    assert bounds.optimum(quality, cost, 0.25) == pytest.approx(0.5)
    assert bounds.optimum(quality, cost, 0.5) == pytest.approx(0.75)
    assert bounds.optimum(quality, cost, 1.0) == pytest.approx(0.75)
    groups = np.array(["easy", "hard", "hard", "hard"])
    assert bounds.group(quality, cost, groups, 0.25) == pytest.approx(0.25 + 0.25 * 2 / 3)


def test_a_saving_is_read_between_two_budgets() -> None:
    table = tables.Table("t", ["a"], np.array([[0.8]]), np.array([[10.0]]), np.array(["x"]))
    rows: list[figures.Row] = [
        {"budget_usd": usd, "spend": 1.0, "quality": quality}
        for usd, quality in ((2.0, 0.6), (4.0, 0.7), (8.0, 0.9))
    ]
    assert figures.saving(rows, table) == pytest.approx(1.0 - 0.6)
    assert figures.saving(rows[:2], table) is None


def write_jsonl(path: Path, arms: int, rows: int, *, c: bool = True, **more: Any) -> None:
    rng = Random(arms)
    lines = []
    for at in range(rows):
        row = {"id": str(at), "prompt": "a b c " * (at % 5), **more}
        row["q"] = {f"arm{a}": float(rng.random() < 0.5 + 0.4 * a / arms) for a in range(arms)}
        if c:
            row["c"] = {f"arm{a}": 1e-4 * (a + 1) * (1 + rng.random()) for a in range(arms)}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")


def write_csv(path: Path, arms: list[str], rows: int) -> None:
    rng = Random(0)
    with path.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["true", *[f"{a}.{k}" for a in arms for k in ("pred", "conf", "correct")]])
        for _ in range(rows):
            says = [(rng.choice("01"), rng.random()) for _ in arms]
            writer.writerow(["1", *[x for label, sure in says for x in (label, sure, label)]])


@pytest.mark.parametrize(("scores", "clipped"), [(1, 1), (300, None)])
def test_a_few_scores_outside_the_scale_are_clipped_and_many_are_refused(
    tmp_path: Path, scores: int, clipped: int | None
) -> None:
    write_jsonl(tmp_path / "t.jsonl", 2, 300)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    for row in rows[:scores]:
        row["q"]["arm0"] = -0.033
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))

    if clipped is None:
        with pytest.raises(tables.NotATable, match=f"{scores} of 600 scores"):
            tables.load(tmp_path / "t.jsonl")
    else:
        table = tables.load(tmp_path / "t.jsonl")
        assert table.clipped == clipped
        assert table.quality.min() == 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for arms in (1, 2, 20):
        write_jsonl(tmp_path / f"of_{arms}.jsonl", arms, 60)
    write_jsonl(tmp_path / "no_costs.jsonl", 2, 60, c=False)
    write_jsonl(tmp_path / "val.jsonl", 4, 60)
    write_jsonl(tmp_path / "test.jsonl", 4, 60, group="g")
    write_csv(tmp_path / "renamed.csv", ["x", "y"], 120)
    (tmp_path / "prices.csv").write_text("task,model,usd_per_call\nT,x,0.0\nT,y,0.001\nU,z,1\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.jsonl").write_text('{"q": {"a": 2.0}, "c": {"a": 1}, "prompt": ""}\n')
    return tmp_path


def test_a_file_that_is_no_table_is_named_with_the_reason(folder: Path) -> None:
    found, others = tables.discover(folder)
    assert set(found) == {"of_1", "of_2", "of_20", "no_costs", "val", "test", "renamed"}
    assert {path.name: why for path, why in others.items()} == {
        "other.csv": "no columns <arm>.correct",
        "broken.jsonl": "1 of 1 scores outside [0, 1]",
    }
    assert {
        pair.table.name: pair.warm and pair.warm.name for pair in tables.paired(found.values())
    }["test"] == "val"


@pytest.mark.integration
def test_every_study_runs_on_any_table(folder: Path) -> None:
    out = folder / "out.json"
    studies = [
        "curves",
        "floors",
        "cascade-floors",
        "cascade-values",
        "drift",
        "tails",
        "newcomer",
        "cascades",
        "two-arms",
        "llmdrift",
        "labels",
    ]
    command = [sys.executable, ROOT / "benchmarks/routing.py", "--data", folder, "--json", out]
    subprocess.run(
        [*command, "--seeds", "1", "--no-rivals", "--only", *studies],
        check=True,
        capture_output=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    result = json.loads(out.read_text())
    curves = [row for row in result["curves"] if "budget_usd" in row]
    assert {row["table"] for row in curves} == {
        *("of_1", "of_2", "of_20", "no_costs", "test", "renamed")
    }
    for row in curves:
        # Each knows more than the one before it.
        assert row["hull"] <= row["group"] + 1e-6 <= row["clairvoyant"] + 2e-6
    assert {row["baseline"] for row in result["cascade-floors"]} > {"none"}
    always = [row for row in result["curves"] if row.get("policy") == "always arm3"]
    assert {row["table"] for row in always} == {"of_20", "test"}
    assert {row["table"] for row in result["newcomer"]} == {"of_20", "test"}
