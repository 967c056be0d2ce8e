"""Secrets and configurations in volumes, which Kubernetes replaces while a gateway runs."""

import json
import signal
from pathlib import Path

import httpx
import pytest

from tests.support.configs import one_model
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.mounted import Mounted
from tests.support.process import Process, free_port
from tests.support.until import until

pytestmark = pytest.mark.integration

OLD = {"provider": "sk-old-key-1\n", "admin-key": "an-old-admin-key-1\n"}
NEW = {"provider": "sk-new-key-22\n", "admin-key": "a-new-admin-key-22\n"}
PATH = "/v2/models/m/infer"


def config(model: str, url: str, secrets: Path, more: str = "") -> str:
    return one_model(
        model,
        server=f'listen = "{url.removeprefix("http://")}"\n{more}',
        protocol="oip",
        path=PATH,
        price="{ per_request_usd = 0.001 }",
        backend=f'model = "m"\nauth = {{ bearer_file = "{secrets}/provider" }}',
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rotated_key_is_used_without_a_restart_and_an_admin_key_after_a_reload(
    tmp_path: Path, workers: int
) -> None:
    async def main() -> None:
        upstream = Upstream()
        url = f"http://127.0.0.1:{free_port()}"
        secrets = Mounted(tmp_path / "secrets", OLD)
        async with serving(upstream) as model:
            text = config(model, url, secrets.path, f"workers = {workers}")
            text = text.replace("memory://", "sqlite:///tollway.db")
            file = Mounted(tmp_path / "config", {"tollway.toml": text}).path / "tollway.toml"
            variable = {"TOLLWAY_SERVER__ADMIN_KEY_FILE": f"{secrets.path}/admin-key"}
            process = Process(file, variables=variable)
            try:
                async with http_client(timeout=20) as http:
                    await process.ready(url, http)

                    async def sent() -> bytes:
                        reply = await http.post(url + PATH, json=inference())
                        assert reply.status_code == 200
                        return upstream.requests[-1][2][b"authorization"]

                    async def allowed(key: str) -> bool:
                        fields = {"authorization": f"Bearer {key.strip()}", "connection": "close"}
                        reply = await http.get(url + "/_tollway/spend", headers=fields)
                        assert reply.status_code in (200, 401)
                        return reply.status_code == 200

                    assert await sent() == b"Bearer sk-old-key-1"
                    assert await allowed(OLD["admin-key"])

                    secrets.put(NEW)
                    await until(lambda: is_new(sent))
                    assert await allowed(OLD["admin-key"])

                    process.tell(signal.SIGHUP)
                    await until(lambda: allowed(NEW["admin-key"]))
                    if workers == 1:
                        assert not await allowed(OLD["admin-key"])
                assert process.end(signal.SIGTERM) == 0
            finally:
                process.stop()

    async def is_new(sent: object) -> bool:
        assert callable(sent)
        return bool(await sent() == b"Bearer sk-new-key-22")

    run(main)


def test_a_configuration_replaced_in_its_volume_is_what_a_reload_reads(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        secrets = Mounted(tmp_path / "secrets", OLD)
        async with serving(Upstream()) as model:
            text = config(model, url, secrets.path, 'admin_key = "an-admin-key-of-the-test"')
            volume = Mounted(tmp_path / "config", {"tollway.toml": text})
            process = Process(volume.path / "tollway.toml")
            try:
                async with http_client(timeout=20) as http:
                    await process.ready(url, http)
                    await reloaded(http, url, [])
                    repriced = text.replace("0.001", "0.002")
                    volume.put({"tollway.toml": repriced})
                    await reloaded(http, url, ["backend llm changed"])
                    volume.put({"tollway.toml": repriced.replace("per_request_usd", "per")})
                    reply = await reload(http, url)
                    assert reply.status_code == 422, reply.text
                assert process.end(signal.SIGTERM) == 0
            finally:
                process.stop()

    async def reload(http: httpx.AsyncClient, url: str) -> httpx.Response:
        fields = {"authorization": "Bearer an-admin-key-of-the-test"}
        return await http.post(url + "/_tollway/reload", headers=fields)

    async def reloaded(http: httpx.AsyncClient, url: str, changes: list[str]) -> None:
        assert json.loads((await reload(http, url)).text) == {"changed": changes}

    run(main)
