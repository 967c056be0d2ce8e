"""The report on versions of features: means by version, and what the difference is worth."""

from pathlib import Path
from random import Random

import pytest

from tollway.gateway.storage.journal import Journal, segments
from tollway.reports.commands import main
from tollway.reports.feature_versions import COLUMNS, table
from tollway.reports.totals import Span


def write(folder: Path, better: float, entities: int = 100, *, labels: bool = True) -> None:
    """Write ten requests of each entity; a quarter of the entities gets v2."""
    rng, journal = Random(1), Journal(folder)
    for number in range(entities):
        version = "v2" if number % 4 == 0 else "v1"
        right = 0.5 + rng.uniform(-0.1, 0.1) + (better if version == "v2" else 0.0)
        for n in range(10):
            decision = journal.new_id()
            common = {
                "id": decision,
                "time": 1000.0 + n,
                "route": "m",
                "tenant": "acme",
                "tags": {},
            }
            part = {"mark": "fresh", "version": version, "entity": f"e{number}", "values": {}}
            journal.append(
                {
                    **{"kind": "decision", **common, "stage": 0, "arm": "a", "arms": ["a"]},
                    **{"pmf": [1.0], "cost_hat_usd": [0.1], "quality_hat": [0.5]},
                    **{"reason": "best", "policy_version": 1, "features": {"user": part}},
                },
                {
                    **{
                        "kind": "attempt",
                        **common,
                        "attempt": 0,
                        "backend": "a",
                        "fallback": False,
                    },
                    **{"status": 200, "error": "", "cost_nano": 100, "provenance": "usage"},
                    **{"latency_s": 0.1, "input_tokens": 0, "output_tokens": 0, "device_s": 0.0},
                    **{"cached_input_tokens": 0},
                },
            )
            if labels:
                quality = float(rng.random() < right)
                journal.append({"kind": "feedback", **common, "quality": quality})
    journal.close()


@pytest.mark.parametrize(
    ("better", "verdict"), [(0.3, "better"), (-0.3, "worse"), (0.0, "no difference seen")]
)
def test_a_version_is_compared_with_the_usual_one(
    better: float, verdict: str, tmp_path: Path
) -> None:
    write(tmp_path, better)
    made = table(segments(tmp_path), Span(), {})
    heads = [column.name for column in COLUMNS]
    usual, tried = [dict(zip(heads, row, strict=True)) for row in made.rows]
    assert (usual["version"], usual["requests"], usual["cost"], usual["verdict"]) == (
        *("v1", 750, 100),
        "",
    )
    assert (tried["version"], tried["labelled_entities"]) == ("v2", 25)
    assert tried["verdict"] == verdict
    assert tried["difference"] == pytest.approx(better, abs=0.12)


def test_without_labels_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 0.0, labels=False)
    assert main(["feature-versions", str(tmp_path)], {}) == 0
    assert "too few labels" in capsys.readouterr().out
