"""`tollway doctor` before a real Redis and real backends, without a gateway and beside one."""

import asyncio
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import run, serving
from tests.support.process import Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.scripted_api import ScriptedApi
from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal
from tollway.gateway.doctor import backends, clocks, machine

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true
listen = "{listen}"

[ledger]
url = "{ledger}"

[journal]
dir = "{folder}/journal"

[state]
dir = "{folder}/state"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
model = "m"
auth = {{ bearer_env = "UP_KEY" }}
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[backends]]
name = "away"
kind = "cpu"
protocol = "oip"
url = "http://127.0.0.1:1"
price = {{ per_request_usd = 0.001 }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["up"]

[[routes]]
name = "iris"
path = "/v2/models/iris/infer"
protocol = "oip"
backends = ["away"]
"""
SECRET = "sk-a-secret-of-a-test-0123456789"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for what answers, and take no slow reply for a wrong clock: the machine is busy."""
    monkeypatch.setattr(clocks, "APART_S", 60.0)
    monkeypatch.setattr(machine, "READY_S", 60.0)
    monkeypatch.setattr(backends, "REACH_S", 60.0)


def examined(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["subject"]: (one["state"], one["seen"]) for one in found["findings"]}


def test_what_is_wrong_is_said_and_a_call_has_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_KEY", SECRET)
    file = tmp_path / "tollway.toml"
    redis = RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru")

    async def doctor(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(cli.main, ["doctor", str(file), *words], {"UP_KEY": SECRET})
        return code, capsys.readouterr().out

    async def main() -> None:
        api, listen = ScriptedApi(), f"127.0.0.1:{free_port()}"
        async with serving(api) as url:
            ledger = f"{redis.url}?timeout_ms=10000"  # this machine may be busy
            file.write_text(CONFIG.format(listen=listen, ledger=ledger, folder=tmp_path, url=url))
            code, text = await doctor("--json")
            assert code == terminal.FAILED
            found = examined(json.loads(text))
            assert found["backend up"][0] == "ok"
            assert found["backend away"][0] == "failure"
            assert found["ledger"][1].startswith("answers in ")
            assert found["ledger's memory"][0] == "failure"
            assert "allkeys-lru" in found["ledger's memory"][1]
            assert found["clock"][0] == "ok"
            assert [asked.method for asked in api.asked] == ["GET"]
            assert not (tmp_path / "journal").exists()

            code, text = await doctor("--calls", "--json")
            found = examined(json.loads(text))
            assert found["call to up"][0] == "ok"
            assert found["call to up"][1].endswith("(usage)")
            assert "costs $0.00" in found["call to up"][1]
            assert found["call to away"][0] == "warning"
            assert api.asked[-1].path == "chat/completions"
            assert json.loads(api.asked[-1].body)["model"] == "m"
            assert api.asked[-1].headers[b"authorization"] == f"Bearer {SECRET}".encode()

            gateway = Process(file)
            try:
                await gateway.ready(f"http://{listen}")
                archive = tmp_path / "ticket.zip"
                code, text = await doctor("--bundle", str(archive))
                assert code == terminal.FAILED
                assert f"ok       address: a gateway runs at {listen} and is ready" in text
                assert "FAILURE  backend away: " in text
            finally:
                gateway.kill()
            with zipfile.ZipFile(archive) as parts:
                assert set(parts.namelist()) == {
                    *("findings.json", "configuration.toml", "packages.txt"),
                    *("events.json", "budgets.json", "audit.json", "metrics.txt"),
                }
                assert all(SECRET.encode() not in parts.read(name) for name in parts.namelist())

    try:
        run(main)
    finally:
        redis.kill()


def test_a_key_that_a_server_quotes_is_neither_shown_nor_bundled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_KEY", SECRET)
    file, archive = tmp_path / "tollway.toml", tmp_path / "ticket.zip"
    archive.touch(0o644)
    archive.chmod(0o644)
    # The key stands where a cut to 300 bytes would leave a part of it.
    said = json.dumps({"error": {"message": "x" * 260 + f" wrong key: {SECRET}"}}).encode()

    async def quoting(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        fields = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": fields})
        await send({"type": "http.response.body", "body": said})

    async def main() -> None:
        async with serving(quoting) as url:
            listen = f"127.0.0.1:{free_port()}"
            file.write_text(
                CONFIG.format(listen=listen, ledger="memory://", folder=tmp_path, url=url)
            )
            words = ["doctor", str(file), "--calls", "--json", "--bundle", str(archive)]
            await asyncio.to_thread(cli.main, words, {"UP_KEY": SECRET})

    run(main)
    text = capsys.readouterr().out
    state, seen = examined(json.loads(text))["call to up"]
    assert (state, "401" in seen, SECRET[:12] in text) == ("failure", True, False)
    assert archive.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(archive) as parts:
        assert all(SECRET[:12].encode() not in parts.read(name) for name in parts.namelist())


def test_a_body_without_a_call_or_for_no_backend_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_KEY", SECRET)
    file = tmp_path / "tollway.toml"
    file.write_text(
        CONFIG.format(listen="127.0.0.1:0", ledger="memory://", folder=tmp_path, url="http://a")
    )
    body = tmp_path / "body.json"
    body.write_text("{}")
    for words in (["--body", f"up={body}"], ["--calls", "--body", f"other={body}"]):
        assert cli.main(["doctor", str(file), *words], {"UP_KEY": SECRET}) == terminal.USAGE
        assert "--body" in capsys.readouterr().err
