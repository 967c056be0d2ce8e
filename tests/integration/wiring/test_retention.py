"""A gateway removes old segments, and says so wherever their decisions are asked for."""

import os
import time
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration

KEEP = "[journal]\nkeep_days = 30\n"


def test_a_label_for_a_removed_decision_is_unknown_and_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            toml = two_backends(a, a, more=KEEP)
            async with running(toml, tmp_path) as tollway:
                old = (await tollway.infer()).headers["x-tollway-decision"]
                folder = tollway.gateway.settings.journal.dir
            (segment,) = folder.glob("journal-*.jsonl")
            at_s = time.time() - 31 * 86_400.0
            os.utime(segment, (at_s, at_s))
            async with running(toml, tmp_path) as tollway:
                new = (await tollway.infer()).headers["x-tollway-decision"]
                await tollway.gateway.retention.run()
                assert not segment.exists()  # the snapshots loaded at the start are newer
                told = await tollway.feedback({"decision": old, "quality": 1.0})
                assert (told.status_code, told.json()["result"]) == (404, "unknown")
                assert "journal.keep_days" in told.json()["detail"]
                shown = await tollway.get(f"/_tollway/decisions/{old}")
                assert "journal.keep_days" in shown["detail"]
                assert (await tollway.feedback({"decision": new, "quality": 1.0})).is_success
                kinds = {event["kind"] for event in tollway.gateway.events.newest()}
                assert "journal_removed" in kinds
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                assert "tollway_journal_segments_removed_total 1.0" in metrics

    run(main)
