"""Operators' acts are in the audit log of a real gateway, and nothing is changed without it."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.until import until
from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.storage import audit_log
from tollway.gateway.wiring.reload import Reloader

pytestmark = pytest.mark.integration

CHANGE = {"action": "limit", "who": "ann", "why": "launch", "limit_usd": "2"}


@pytest.mark.parametrize("workers", [1, 2])
def test_who_did_what_is_shown_by_command_and_by_api(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        environ = {"TOLLWAY_URL": url, "TOLLWAY_KEY_FILE": str(tmp_path / "state" / "admin.key")}
        file = tmp_path / "tollway.toml"
        log = tmp_path / "state" / audit_log.NAME

        async def command(*words: str) -> str:
            assert await asyncio.to_thread(cli.main, list(words), environ) == terminal.OK
            return capsys.readouterr().out

        async def acts() -> list[dict[str, Any]]:
            return json.loads(await command("audit", "--json", "--since", "1h"))

        async def reloads(count: int) -> bool:
            return sum(act["act"] == "reload" for act in await acts()) == count

        async with serving(Upstream()) as a:
            server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
            more = budget("cap", "1.0") + f'\n[state]\ndir = "{tmp_path}/state"\n'
            text = two_backends(a, a, server=server, more=more, ledger="sqlite:///tollway.db")
            file.write_text(text)
            gateway = Process(file, "--workers", str(workers))
            try:
                await gateway.ready(url)
                await command("budgets", "set", "cap", "2", "--who", "ann", "--why", "launch")
                file.write_text(text.replace("limit_usd = 1.0", "limit_usd = 3.0"))
                gateway.tell(signal.SIGHUP)
                await until(lambda: reloads(1), every_s=0.1)
                file.write_text(text.replace("limit_usd = 1.0", 'limit_usd = "x"'))
                async with http_client() as client:
                    headers = {"content-type": "application/json"}
                    reply = await client.post(url + "/_tollway/reload", json={}, headers=headers)
                    assert reply.status_code == 422
                    shown = (await client.get(url + "/_tollway/audit?limit=2")).json()["acts"]
                    bad = await client.get(url + "/_tollway/audit?limit=0")
                    file.write_text(text.replace("limit_usd = 1.0", "limit_usd = 4.0"))
                    reply = await client.post(url + "/_tollway/reload", json={}, headers=headers)
                    assert reply.json() == {"changed": ["budget cap changed"]}
                await until(lambda: reloads(2 if workers > 1 else 3), every_s=0.1)
                *again, refused, reloaded, changed, started, made = await acts()
                assert shown == [refused, reloaded]
                assert bad.status_code == 400
            finally:
                gateway.end(signal.SIGTERM)
        assert (made["act"], started["act"]) == ("make admin key", "start")
        assert (changed["act"], changed["about"]) == ("budget limit", "cap")
        assert (changed["who"], changed["by"], changed["why"]) == ("ann", "admin key", "launch")
        assert changed["client"] == "127.0.0.1"
        assert changed["outcome"] == "done"
        limits = [changed[when]["limit_nano"] for when in ("before", "after")]
        assert limits == [10**9, 2 * 10**9]
        assert (reloaded["who"], reloaded["outcome"]) == ("signal", "done")
        assert reloaded["before"] == {"budgets.cap.limit_usd": 1.0}
        assert reloaded["after"] == {"budgets.cap.limit_usd": 3.0}
        assert (refused["who"], refused["outcome"]) == ("this machine", "refused")
        assert "limit_usd" in refused["why"]
        assert [(act["act"], act["who"]) for act in again] == (
            [("reload", "signal"), ("reload all workers", "this machine")]
            if workers > 1
            else [("reload", "this machine")]
        )
        told = await command("audit", "--file", str(log))
        assert "ann (admin key, 127.0.0.1)   budget limit cap\n    limit $1.00 -> $2.00\n" in told
        assert "    why: launch\n" in told
        assert f"no break in {8 if workers == 1 else 9} lines\nlast: " in await command(
            "audit", "--verify", "--file", str(log)
        )
        logged = (tmp_path / "log").read_text()
        for line in log.read_bytes().splitlines():
            entry = audit_log.parsed(line)
            assert entry is not None
            is_logged = f"audit log entry {entry.fields['n']} {entry.checksum}" in logged
            assert is_logged == (entry.fields["by"] != "command line")
        log.write_bytes(log.read_bytes().replace(b'"who":"ann"', b'"who":"bob"', 1))
        words = ["audit", "--verify", "--file", str(log)]
        assert await asyncio.to_thread(cli.main, words, environ) == terminal.FAILED
        assert "line 3 (entry 3) was changed" in capsys.readouterr().err

    run(main)


def test_without_an_audit_log_no_money_changes_and_reloads_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            config = two_backends(a, a, more=budget("cap", "1.0"))
            async with running(config, tmp_path) as tollway:
                path = tollway.gateway.settings.state.dir / audit_log.NAME
                path.mkdir(parents=True)  # cannot be opened for writing, by root either
                before = await tollway.get("/_tollway/budgets/cap")
                reply: httpx.Response = await tollway.client.post(
                    tollway.url + "/_tollway/budgets/cap", json=CHANGE
                )
                assert (reply.status_code, reply.json()["title"]) == (503, "Audit log not writable")
                after = await tollway.get("/_tollway/budgets/cap")
                assert (after["limit_nano"], after["changes"]) == (before["limit_nano"], [])
                assert (await tollway.get("/_tollway/overview"))["acts"] == []
                reloader = Reloader(tollway.gateway, lambda: tollway.gateway.settings)
                assert await reloader.reload() == []
                (event, *_) = (await tollway.get("/_tollway/events"))["events"]
                assert (event["kind"], event["about"]) == ("audit_failed", "reload")
                path.rmdir()
                again = await tollway.client.post(
                    tollway.url + "/_tollway/budgets/cap", json=CHANGE
                )
                assert again.status_code == 200
                acts = (await tollway.get("/_tollway/audit"))["acts"]
                assert [(act["who"], act["by"]) for act in acts] == [("ann", "this machine")]
                (shown,) = (await tollway.get("/_tollway/overview"))["acts"]
                assert (shown["kind"], shown["about"]) == ("budget limit", "cap")
                assert shown["text"] == "by ann: limit $1.00 -> $2.00; free $1.00 -> $2.00; launch"

    run(main)


def test_an_outcome_that_cannot_be_written_leaves_what_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            config = two_backends(a, a, more=budget("cap", "1.0"))
            async with running(config, tmp_path) as tollway:
                audit = tollway.gateway.audit
                write = type(audit).write

                def fails(self: Any, act: str, actor: Any, outcome: str, **more: Any) -> int:
                    if outcome != audit_log.BEGUN:
                        raise OSError("no space")
                    return write(self, act, actor, outcome, **more)

                monkeypatch.setattr(type(audit), "write", fails)
                reply = await tollway.client.post(
                    tollway.url + "/_tollway/budgets/cap", json=CHANGE
                )
                assert reply.json()["limit_nano"] == 2 * 10**9
                (act,) = (await tollway.get("/_tollway/audit"))["acts"]
                assert (act["outcome"], act["who"]) == ("begun", "ann")
                (event, *_) = (await tollway.get("/_tollway/events"))["events"]
                assert (event["kind"], "entry 1" in event["text"]) == ("audit_failed", True)
                assert act["after"] == {"limit_usd": "2"}

    run(main)


def test_a_viewer_may_read_it_and_a_tenant_may_not(tmp_path: Path) -> None:
    async def main() -> None:
        keys = {name: new_key() for name in ("admin", "viewer", "acme")}
        server = f'admin_key_hash = "{hash_key(keys["admin"])}"\n'
        server += f'viewer_key_hash = "{hash_key(keys["viewer"])}"'
        tenant = f'[[tenants]]\nname = "acme"\nkey_hash = "{hash_key(keys["acme"])}"\n'
        async with serving(Upstream()) as a:
            config = two_backends(a, a, server=server, more=tenant)
            async with running(config, tmp_path) as tollway:

                async def status(name: str) -> int:
                    headers = {"authorization": f"Bearer {keys[name]}"}
                    url = tollway.url + "/_tollway/audit"
                    return int((await tollway.client.get(url, headers=headers)).status_code)

                assert [await status(name) for name in keys] == [200, 200, 401]

    run(main)
