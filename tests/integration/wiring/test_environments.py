"""An environment: a tag of each request, a label of each metric, and what differs from another."""

import json
from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.cli import main as cli

pytestmark = pytest.mark.integration


def test_the_environment_is_a_tag_of_each_request_and_a_label_of_each_metric(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        scope = '\n[[budgets]]\nname = "staging"\nlimit_usd = 1\nwindow = "day"\n'
        scope += 'scope = { tags = { environment = "staging" } }\n'
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = 'environment = "staging"\n' + two_backends(a, b, more=scope)
            async with running(text, tmp_path) as tollway:
                reply = await tollway.infer(x_tollway_tags="environment=production,team=ads")
                decision = reply.headers["x-tollway-decision"]
                told = await tollway.get(f"/_tollway/decisions/{decision}")
                assert told["tags"] == {"environment": "staging", "team": "ads"}
                budgets = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert budgets[0]["spent_nano"] + budgets[0]["held_nano"] > 0
                text = (await tollway.client.get(tollway.url + "/metrics")).text
                samples = [line for line in text.splitlines() if line and line[0] != "#"]
                assert len(samples) > 50
                assert [one for one in samples if 'environment="staging"' not in one] == []

    run(main)


def test_check_config_shows_what_an_environment_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = two_backends("http://127.0.0.1:1", "http://127.0.0.1:2", more=budget("day", "10"))
    (tmp_path / "tollway.toml").write_text(base)
    staging = tmp_path / "tollway.staging.toml"
    staging.write_text(
        'extends = "tollway.toml"\nenvironment = "staging"\n'
        '[journal]\ndir = "j"\n[state]\ndir = "s"\n[[budgets]]\nname = "day"\nlimit_usd = 2\n'
    )
    assert cli.main(["check-config", str(staging), "--diff"], {}) == 0
    printed = capsys.readouterr().out
    assert "budgets.day.limit_usd: 10.0 -> 2.0" in printed
    assert 'environment: not set -> "staging"' in printed
    assert "backends" not in printed
    words = ["check-config", str(tmp_path / "tollway.toml"), "--diff"]
    assert cli.main([*words, str(staging), "--json"], {}) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert {"setting": "budgets.day.limit_usd", "before": 2.0, "after": 10.0} in changes
    assert cli.main(words, {}) == 2
    assert "extends no file" in capsys.readouterr().err
