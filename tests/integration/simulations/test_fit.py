"""Scenarios fitted to journals: what runs in the world that is fitted is what was logged."""

from pathlib import Path

import numpy as np
import pytest

from tollway.gateway.cli.main import main
from tollway.simulations.replay import log_files, replay
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.logs import Log
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.world import engine, scenario_file

pytestmark = pytest.mark.integration

WORLD = """
name = "known"
hours = 24
[workload]
requests_per_day = 12000
arrivals = "diurnal"
swing = 0.5
peak_hour = 9
tenants = 3
[labels]
share = 0.3
[route]
policy = "weighted"
policy_options = { weights = { small = 0.6, large = 0.4 } }
[[backends]]
name = "small"
price = { per_request_usd = 0.0001 }
quality = 0.8
latency_s = 0.05
[[backends]]
name = "large"
price = { per_request_usd = 0.0002, input_usd_per_mtok = 0.5, output_usd_per_mtok = 1 }
quality = 0.95
latency_s = 0.4
latency_spread = 0.5
"""


def logged(folder: Path, scratch: Scratch) -> Log:
    return log_files.read(folder, scratch, Columns())


def test_a_world_fitted_to_a_journal_spends_and_answers_as_the_journal_did(tmp_path: Path) -> None:
    engine.run(scenario_file.parse(WORLD), seed=3, journal=tmp_path / "first")
    fitted = tmp_path / "world.toml"
    assert main(["simulate", "fit", str(tmp_path / "first"), "-o", str(fitted)]) == 0
    scenario = scenario_file.load(str(fitted))
    engine.run(scenario, seed=4, journal=tmp_path / "second")

    one, two = Scratch(), Scratch()
    first, second = logged(tmp_path / "first", one), logged(tmp_path / "second", two)
    spent, again = first.total_usd.sum(), second.total_usd.sum()
    assert again == pytest.approx(spent, rel=0.02)
    quality = replay.Replay(first).logged().quality
    assert isinstance(quality, Estimate)
    assert quality.low < np.nanmean(second.final_quality) < quality.high
    for at in range(2):
        ours, theirs = (log.latency_s[log.arm == at] for log in (first, second))
        for share in (0.1, 0.5, 0.9, 0.99):
            assert np.quantile(theirs, share) == pytest.approx(np.quantile(ours, share), rel=0.15)

    assert scenario.workload.arrivals == "diurnal"
    assert scenario.workload.swing == pytest.approx(0.5, abs=0.06)
    assert scenario.workload.peak_hour == pytest.approx(9.0, abs=0.5)
    assert scenario.workload.tenants == 3
    assert scenario.workload.zipf == pytest.approx(1.1, abs=0.1)
    assert scenario.labels.share == pytest.approx(0.3, abs=0.02)
    by_name = {backend.name: backend for backend in scenario.backends}
    assert by_name["small"].quality == pytest.approx(0.8, abs=0.03)
    assert by_name["large"].quality == pytest.approx(0.95, abs=0.03)
    assert by_name["large"].latency_s == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("content", [None, ""])
def test_a_journal_without_decisions_is_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "journal"
    if content is not None:
        folder.mkdir()
        (folder / "journal-1.jsonl").write_text(content)
    fitted = tmp_path / "world.toml"
    assert main(["simulate", "fit", str(folder), "-o", str(fitted)]) == 1
    assert not fitted.exists()
    assert capsys.readouterr().err
