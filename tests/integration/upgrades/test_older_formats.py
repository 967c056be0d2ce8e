"""Files of older versions, kept by `scripts/upgrade-check --golden`, are read by this one."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.redis_server import redis_server
from tollway.gateway.budgets import recovery_file
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows

pytestmark = pytest.mark.integration

FORMATS = Path(__file__).parents[2] / "data" / "formats"
VERSIONS = sorted(path.name for path in FORMATS.iterdir())
RECOVERABLE = [name for name in VERSIONS if [*(FORMATS / name).rglob("*.recovery")]]
CHEAP_NANO, DEAR_NANO = 100_000, 1_000_000


def facts(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FORMATS / version / "facts.json").read_text())
    return found


def config(version: str, models: str, ledger: str = "sqlite:///tollway.db") -> str:
    text = (FORMATS / version / "tollway.toml").read_text()
    values = {"PORT": "0", "LEDGER": ledger, "MODELS": models, "LIMIT": "1000.0"}
    for name, value in values.items():
        text = text.replace(name, value)
    return text


async def budget(tollway: Running) -> dict[str, Any]:
    """Return the budget's figures."""
    key = tollway.gateway.settings.server.admin_key
    assert key is not None
    fields = {"authorization": f"Bearer {key.get_secret_value()}"}
    reply = await tollway.client.get(f"{tollway.url}/_tollway/budgets", headers=fields)
    [found] = reply.json()["budgets"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_row_of_an_older_journal_is_read_and_the_money_is_there(version: str) -> None:
    damaged: list[Path] = []
    for name in ("stopped", "killed"):
        [path] = segments(FORMATS / version / name / ".tollway" / "journal")
        found = [*rows(path, lambda path=path: damaged.append(path))]  # type: ignore[misc]
        kinds = {row["kind"] for row in found}
        assert {"decision", "attempt", "feedback"} <= kinds
        assert all("shadow_price" in row for row in found if row["kind"] == "decision")
        cost_nano = sum(row["cost_nano"] for row in found if row["kind"] == "attempt")
        assert cost_nano == facts(version)[name]["spent_nano"]
    assert damaged == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_gateway_goes_on_from_the_folder_of_an_older_one(tmp_path: Path, version: str) -> None:
    told = facts(version)["stopped"]
    shutil.copytree(FORMATS / version / "stopped", tmp_path, dirs_exist_ok=True)

    async def main() -> None:
        async with serving(Upstream()) as models:
            async with running(config(version, models), tmp_path) as tollway:
                cap = await budget(tollway)
                assert cap["spent_nano"] == told["spent_nano"]
                assert tollway.gateway.routes["m"].policy.version == told["learned"]
                for decision in told["unlabelled"]:
                    reply = await tollway.feedback({"decision": decision, "label": 2})
                    assert reply.json()["result"] == "learned"
                again = {"decision": told["unlabelled"][0], "label": 2}
                assert (await tollway.feedback(again)).json()["result"] == "duplicate"
                reply = await tollway.infer(1.0)
                cost = {"cheap": CHEAP_NANO, "dear": DEAR_NANO}[reply.headers["x-tollway-backend"]]
                cap = await budget(tollway)
                assert cap["spent_nano"] == told["spent_nano"] + cost

    run(main)


@pytest.mark.parametrize("version", RECOVERABLE)
def test_what_an_older_gateway_spent_before_it_was_killed_is_charged(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = facts(version)["killed"]
    shutil.copytree(FORMATS / version / "killed", tmp_path, dirs_exist_ok=True)
    [file] = tmp_path.rglob("*.recovery")
    # The file is proof on the boot that wrote it: take this machine to be still in that one.
    [header] = re.findall(rb'\{"ledger": [^}]*\}', file.read_bytes())
    monkeypatch.setattr(recovery_file, "boot", lambda: json.loads(header)["boot"])

    async def main() -> None:
        async with serving(Upstream()) as models:
            async with running(config(version, models), tmp_path) as tollway:
                cap = await budget(tollway)
                assert cap["spent_nano"] == told["spent_nano"]
                assert cap["unaccounted_nano"] == 0
                assert tollway.gateway.routes["m"].policy.version == told["learned"]
        assert not file.exists()

    run(main)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redis_ledger_of_an_older_gateway_goes_on(tmp_path: Path, version: str) -> None:
    told = facts(version)["redis"]
    keys = json.loads((FORMATS / version / "redis.json").read_text())

    async def main() -> None:
        with redis_server(tmp_path / "redis") as redis:
            with Redis(port=redis.port) as client:
                for key, content in keys.items():
                    [(kind, value)] = content.items()
                    if kind == "hash":
                        client.hset(key, mapping=value)
                    elif kind == "list":
                        client.rpush(key, *value)
                    else:
                        client.set(key, value)
            async with serving(Upstream()) as models:
                text = config(version, models, redis.url)
                async with running(text, tmp_path) as tollway:
                    cap = await budget(tollway)
                    assert cap["spent_nano"] == told["spent_nano"]
                    reply = await tollway.infer(1.0)
                    arm = reply.headers["x-tollway-backend"]
                    cost = {"cheap": CHEAP_NANO, "dear": DEAR_NANO}[arm]
                    cap = await budget(tollway)
                    assert cap["spent_nano"] == told["spent_nano"] + cost

    run(main)
