"""A subject is erased from the files of a gateway while it answers others."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.until import until
from tollway.gateway.cli.main import main
from tollway.gateway.storage.journal import segments

pytestmark = pytest.mark.integration

MORE = """
[capture]
share = 1.0
dir = "{folder}/captures"

[journal]
dir = "{folder}/journal"
segment_mb = 1

[state]
dir = "{folder}/state"
"""
PERSON = "ann@example.com"


def files_with_the_person(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if PERSON.encode() in path.read_bytes()]


def test_a_person_is_erased_while_others_are_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(gateway: Running, config: Path) -> None:
        mine, others = [], []
        for n in range(40):
            tags = f"user={PERSON if n % 2 else n},team=ads"
            reply = await gateway.infer(float(n), x_tollway_tags=tags)
            (mine if n % 2 else others).append(reply.headers["x-tollway-decision"])
        label = {"decision": mine[0], "label": 1}
        assert (await gateway.feedback(label)).status_code == 202
        await until(lambda: gateway.gateway.captures.written == 40)
        await until(lambda: len(files_with_the_person(tmp_path)) == 2)  # a segment and captures
        spent = await gateway.get("/_tollway/spend")
        cost = sum(row["cost_nano"] for row in gateway.journalled("attempt"))

        stopped = asyncio.Event()

        async def traffic() -> list[int]:
            codes = []
            while not stopped.is_set():
                codes.append((await gateway.infer(0.5)).status_code)
            return codes

        busy = asyncio.create_task(traffic())
        words = ["journal", "erase", str(config), "--tag", f"user={PERSON}", "--json"]
        try:
            code = await asyncio.to_thread(main, words, {})
        finally:
            stopped.set()
            codes = await busy
        assert set(codes) == {200}
        done = json.loads(capsys.readouterr().out)
        assert (code, done["decisions"], done["captures"]) == (0, 20, 20)
        assert (done["rows"], done["rows_left"]) == (41, 0)

        assert not files_with_the_person(tmp_path)
        rows = gateway.journalled("attempt")
        earlier = {*mine, *others}
        assert sum(row["cost_nano"] for row in rows if row["id"] in earlier) == cost
        assert len([row for row in rows if row["tags"].get("team")]) == 20
        assert spent["cost_nano"] == cost
        now = await gateway.get("/_tollway/spend")
        assert now["cost_nano"] == sum(row["cost_nano"] for row in rows)
        explained = await gateway.get(f"/_tollway/decisions/{mine[1]}")
        assert "answer erased" in " ".join(explained["story"])
        late = await gateway.feedback({"decision": mine[1], "quality": 0.5})
        assert late.json()["result"] == "duplicate"
        assert (await gateway.feedback({"decision": others[1], "label": 1})).status_code == 202
        [act] = [one for one in (await gateway.get("/_tollway/audit"))["acts"] if one["about"]][:1]
        assert (act["act"], act["after"]["digest"]) == ("erase subject", done["digest"])

    async def started_again(gateway: Running, config: Path) -> None:
        assert (await gateway.infer(0.5)).status_code == 200
        metrics = (await gateway.client.get(f"{gateway.url}/metrics")).text
        skipped = [line for line in metrics.splitlines() if "journal_rows_skipped_total" in line]
        assert [line for line in skipped if not line.startswith("#")] == [
            "tollway_journal_rows_skipped_total 0.0"
        ]

    async def whole() -> None:
        async with serving(Upstream()) as url:
            toml = two_backends(url, url, more=MORE.format(folder=tmp_path))
            config = tmp_path / "tollway.toml"
            config.write_text(toml)
            stages: list[Any] = [test, started_again]
            for stage in stages:
                async with running(toml, tmp_path) as gateway:
                    await stage(gateway, config)
        assert segments(tmp_path / "journal")

    run(whole)
