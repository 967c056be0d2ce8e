"""`tollway features`: validate a source against the journal, and erase with proof."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tollway.gateway.cli.client import ControlClient
from tollway.gateway.cli.main import main
from tollway.gateway.features.online.entities import pseudonyms
from tollway.gateway.features.sources.sqlite import SqliteSource
from tollway.gateway.storage.journal import Journal

GROUP = """
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "sqlite:///features.db"
values = [{ name = "spend", range = [0, 100] }]
"""
JOURNAL = '[journal]\ndir = "journal"\n'


def written(folder: Path, stored: dict[str, Any], served: dict[str, float]) -> Path:
    """Write a configuration, its source and a journal; entities are pseudonyms."""
    config = folder / "tollway.toml"
    config.write_text(two_backends("http://a:1", "http://b:1", more=GROUP + JOURNAL))

    async def fill() -> None:
        source = SqliteSource(folder / "features.db", "user")
        for entity, spend in stored.items():
            await source.put(entity, {"spend": spend})
        await source.aclose()

    asyncio.run(fill())
    journal = Journal(folder / "journal")
    for entity, spend in served.items():
        part = {"mark": "fresh", "version": "1", "entity": entity, "values": {"spend": spend}}
        row = {"kind": "decision", "time": 1.0, "dense": [], "sparse": []}
        row |= {"route": "m", "tenant": "acme"}
        journal.append({**row, "id": journal.new_id(), "features": {"user": part}})
    journal.close()
    return config


def test_a_source_that_agrees_with_the_journal_is_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {f"e{n}": float(n % 50) for n in range(200)}
    config = written(tmp_path, values, values)
    assert main(["features", "validate", str(config)], {}) == 0
    said = capsys.readouterr().out
    assert "the source has 200 of 200 entities" in said
    assert "no problem found" in said


def test_drifted_and_broken_values_are_named_and_fail_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = {f"e{n}": float(n % 50) for n in range(200)}
    stored: dict[str, Any] = {entity: spend + 45 for entity, spend in served.items()}
    stored |= {"e0": 900.0, "e1": "much"}
    config = written(tmp_path, stored, served)
    assert main(["features", "validate", str(config), "--json"], {}) == 1
    [document] = json.loads(capsys.readouterr().out)
    assert len(document["problems"]) == 3
    assert document["values"][0]["psi"] > 0.25


def test_the_uses_of_an_entity_are_listed_by_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = pseudonyms(None)("user", "17")
    config = written(tmp_path, {}, {digest: 5.0, "other": 6.0})
    assert main(["features", "uses", str(config), "--entity", "17"], {}) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "acme" in said
    assert main(["features", "uses", str(config), "--entity", "17", "--json"], {}) == 0
    [use] = json.loads(capsys.readouterr().out)
    assert (use["route"], use["values"]) == ("m", {"spend": 5.0})
    assert main(["features", "uses", str(config), "--entity", "18"], {}) == 0
    assert "no use" in capsys.readouterr().out


def test_erasing_prints_the_proof(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = {"rows_erased": 3, "rows_read": 9, "segments": 1, "digest": "ab" * 32}
    proof = {
        "feature": "user",
        "entity": "f00",
        "tiers": {"source": 1, "memory": 1},
        "journal": journal,
        "source_erased": True,
        "remaining": 0,
    }
    asked: list[tuple[str, ...]] = []
    groups = {"features": [{"name": "user"}]}
    monkeypatch.setattr(ControlClient, "get", lambda self, *path: groups)
    monkeypatch.setattr(ControlClient, "delete", lambda self, *path: asked.append(path) or proof)
    assert main(["features", "erase", "--entity", "17"], {}) == 0
    assert asked == [("features", "user", "17")]
    said = capsys.readouterr().out
    assert "3 of 9 rows" in said
    assert "ab" * 32 in said
    proof["source_erased"] = False
    assert main(["features", "erase", "--entity", "17"], {}) == 1
