"""The study of replay's intervals counts coverage, refusals and wrong promotions."""

import importlib.util
import json
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("truth_study", ROOT / "benchmarks/replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["truth_study"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_what_held_what_was_promoted_and_what_wrongly_is_counted(study: ModuleType) -> None:
    head = {"table": "t", "p_min": 0.1, "method": "normal", "policy": "a", "ess": 60.0}
    told = [  # (low, high, truth) of quality and of the gain
        ((0.5, 0.7, 0.6), (0.1, 0.3, 0.2)),  # held, rightly promoted
        ((0.5, 0.7, 0.8), (0.1, 0.3, -0.1)),  # missed, wrongly promoted
        ((0.5, 0.7, 0.5), (-0.1, 0.3, 0.0)),  # held at its end, not promoted
    ]
    rows = [{**head, "quality": quality, "gain": gain} for quality, gain in told]
    (found,) = study.summary([*rows, {**head, "ess": 20.0}])
    assert found["asked"] == 4
    assert found["quality_covered"] == pytest.approx(2 / 3)
    assert found["quality_width"] == pytest.approx(0.2)
    assert (found["promoted"], found["wrongly"]) == (2, 1)
    assert found["no_answer"] == 0.25
    assert found["answered_below_ess"] == 0


@pytest.mark.integration
def test_twenty_policies_are_estimated_from_each_log_and_held(
    study: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng, lines = Random(1), []
    for at in range(400):
        hard = at % 4 == 0
        chances = {"small": 0.4 if hard else 0.9, "large": 0.95}
        right = {arm: float(rng.random() < chance) for arm, chance in chances.items()}
        row = {"id": str(at), "group": "hard" if hard else "easy", "prompt": "?"}
        lines.append(json.dumps(row | {"q": right, "c": {"small": 0.001, "large": 0.01}}))
    (tmp_path / "tiny.jsonl").write_text("\n".join(lines))
    told = tmp_path / "told.json"
    options = ["--logs", "2", "--requests", "400", "--p-min", "0.2", "--json", str(told)]
    monkeypatch.setattr(
        sys, "argv", ["replay.py", "--data", str(tmp_path), "--tables", "tiny", *options]
    )
    study.main()
    found = {row["method"]: row for row in json.loads(told.read_text())}
    assert set(found) == {"bernstein", "betting", "normal"}
    assert found["bernstein"]["asked"] == 40
    assert found["bernstein"]["quality_covered"] >= 0.95
    assert found["bernstein"]["wrongly"] == 0
    assert found["normal"]["quality_width"] < found["bernstein"]["quality_width"] < 0.8
    assert "promoted" in capsys.readouterr().out


def test_feedback_that_was_really_logged_is_loaded(study: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "random.csv"
    lines = [
        f"2019-11-24 00:00:{at % 60:02d}+00:00,{at % 2},{at % 3 == 0:d},0.5" for at in range(200)
    ]
    path.write_text("timestamp,item_id,click,propensity_score\n" + "\n".join(lines))
    assert "200 decisions, 2 arms, 67 times right" in study.loaded(path)
    assert "2 arms estimated, 0 refused" in study.loaded(path)
