"""What was learned wrongly can be unlearned: by an earlier snapshot, or without some labels."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.tenants import As, quality_hat, traffic, two_tenants
from tollway.gateway.cli import main as cli
from tollway.gateway.learning.unlearning import Without
from tollway.gateway.storage import retained_snapshots, snapshot_file

CAPSYS = pytest.CaptureFixture[str]


def command(tmp_path: Path, toml: str, *words: str) -> int:
    """Run `tollway policy WORDS` on a configuration."""
    file = tmp_path / "tollway.toml"
    file.write_text(toml)
    action, *rest = words
    return cli.main(["policy", action, str(file), *rest], {})


async def lied_to(tollway: Running) -> None:
    """Have two tenants label; one is trusted and labels falsely."""
    await traffic(tollway, "honest", 200, 1)
    await traffic(tollway, "mallory", 100, 2)


def worst(tollway: Running) -> float:
    return min(quality_hat(tollway, arm) for arm in ("cheap", "dear"))


@pytest.mark.integration
def test_a_tenants_labels_are_unlearned_by_a_start_after(tmp_path: Path, capsys: CAPSYS) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            toml = two_tenants(a, a, mallory="labeller = true")
            async with running(toml, tmp_path) as tollway:
                await lied_to(tollway)
                assert worst(tollway) < 0.7
            words = ["relearn", "--without", "tenant=mallory", "--json"]
            assert await asyncio.to_thread(command, tmp_path, toml, *words) == 0
            told = json.loads(capsys.readouterr().out)
            (route,) = told["routes"]
            assert (route["learned"], route["left_out"], told["skipped"]) == (200, 100, 0)
            before, after = route["expected_before"], route["expected_after"]
            assert min(after.values()) > min(before.values()) + 0.1
            async with running(toml, tmp_path) as tollway:
                assert worst(tollway) > 0.75
                assert tollway.gateway.routes["m"].policy.version == 200
                assert not retained_snapshots.restore(
                    tollway.gateway.settings.state.dir, "m"
                ).exists()
            async with running(toml, tmp_path) as tollway:  # and they stay unlearned
                assert tollway.gateway.routes["m"].policy.version == 200
            assert await asyncio.to_thread(command, tmp_path, toml, "rollback", route["kept"]) == 0
            async with running(toml, tmp_path) as tollway:
                assert tollway.gateway.routes["m"].policy.version == 300
                acts = tollway.gateway.audit.newest(10)
            assert [(act["act"], act["outcome"], act["why"]) for act in acts] == [
                ("policy rollback", "done", ""),
                ("policy relearn", "done", "--without tenant=mallory"),
            ]
            assert {act["by"] for act in acts} == {"command line"}
            assert acts[0]["about"] == f"m to {route['kept']}"

    run(main)


@pytest.mark.integration
def test_a_running_gateway_applies_the_commands(tmp_path: Path, capsys: CAPSYS) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            toml = two_tenants(a, a, mallory="labeller = true")
            async with running(toml, tmp_path) as tollway:
                await traffic(tollway, "honest", 200, 1)
                await tollway.gateway.state.save()
                assert await asyncio.to_thread(command, tmp_path, toml, "snapshots", "--json") == 0
                (first,) = json.loads(capsys.readouterr().out)
                assert first["route"] == "m"
                await traffic(tollway, "mallory", 100, 2)
                await tollway.gateway.state.save()
                assert worst(tollway) < 0.7
                code = await asyncio.to_thread(command, tmp_path, toml, "rollback", first["id"])
                assert code == 0
                assert "is restored to its state of" in capsys.readouterr().out
                await tollway.gateway.state.save()
                assert worst(tollway) > 0.75
                kinds = [event["kind"] for event in tollway.gateway.events.newest()]
                assert "policy_restored" in kinds
                fresh = await As(tollway, "honest").ask()
                reply = await As(tollway, "admin").tell({"decision": fresh, "label": 1})
                assert reply.json()["result"] == "learned"
            async with running(toml, tmp_path) as tollway:
                assert tollway.gateway.routes["m"].policy.version == 201

    run(main)


@pytest.mark.integration
def test_a_dry_run_changes_nothing(tmp_path: Path, capsys: CAPSYS) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            toml = two_tenants(a, a, mallory="labeller = true")
            async with running(toml, tmp_path) as tollway:
                await lied_to(tollway)
                folder = tollway.gateway.settings.state.dir
            files = sorted(path.name for path in folder.rglob("*"))
            segments = sorted((tmp_path / ".tollway").rglob("journal-*"))
            words = ["relearn", "--from", "2020-01-01", "--dry-run"]
            assert await asyncio.to_thread(command, tmp_path, toml, *words) == 0
            out = capsys.readouterr().out
            assert "0 labels learned, 300 left out" in out
            assert "Nothing was changed." in out
            assert sorted(path.name for path in folder.rglob("*")) == files
            assert sorted((tmp_path / ".tollway").rglob("journal-*")) == segments

    run(main)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["relearn"], "name the labels to leave out"),
        (["relearn", "--without", "tenant"], "tenant=NAME"),
        (["relearn", "--without", "colour=red"], "tenant=NAME"),
        (["relearn", "--from", "yesterday"], "write it like"),
        (["relearn", "--from", "2026-02-01", "--to", "2026-01-01"], "--from must be before"),
        (["relearn", "--without", "tenant=a", "--route", "n"], "its routes: m"),
        (["snapshots", "--route", "n"], "its routes: m"),
        (["rollback", "m.1"], "policy snapshots"),
    ],
)
def test_an_invalid_command_says_what_to_write(
    tmp_path: Path, capsys: CAPSYS, words: list[str], why: str
) -> None:
    toml = two_tenants("http://127.0.0.1:9", "http://127.0.0.1:9")
    assert command(tmp_path, toml, *words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("action", ["snapshots", "rollback", "relearn"])
def test_help_teaches(capsys: CAPSYS, action: str) -> None:
    with pytest.raises(SystemExit):
        cli.main(["policy", action, "--help"], {})
    out = capsys.readouterr().out
    assert f"tollway policy {action} tollway.toml" in out
    assert "exit codes" in out


def test_which_labels_are_left_out() -> None:
    row: dict[str, Any] = {"time": 10.0, "tenant": "acme", "source": "judge", "id": "d"}
    assert Without(tenants=frozenset({"acme"}))(row)
    assert not Without(tenants=frozenset({"acme"}))({**row, "by": "labeller:other"})
    assert Without(tenants=frozenset({"other"}))({**row, "by": "labeller:other"})
    assert not Without(tenants=frozenset({"acme"}), sources=frozenset({"x"}))(row)
    assert Without(from_s=10.0, to_s=11.0)(row)
    assert not Without(from_s=9.0, to_s=10.0)(row)
    assert not Without(tenants=frozenset({"acme"}))({**row, "time": None})


def test_two_days_of_hours_are_kept(tmp_path: Path) -> None:
    blob = snapshot_file.pack({"policy": b"x"}, 1.0)
    for hour in range(60):
        now_s = 1000.0 + hour * 3600.0
        assert retained_snapshots.due(tmp_path, "m", now_s)
        retained_snapshots.keep(tmp_path, "m", blob, now_s)
        assert not retained_snapshots.due(tmp_path, "m", now_s + 3599.0)
    retained_snapshots.keep(tmp_path, "m.x", blob, 5.0)
    found = retained_snapshots.listed(tmp_path, "m")
    assert len(found) == retained_snapshots.KEPT_MAX
    assert found[0].time_s == 1000.0 + 59 * 3600.0
