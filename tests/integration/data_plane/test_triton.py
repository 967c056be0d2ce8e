"""Triton's client works unchanged through the gateway, against a real model server."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from examples.digits import processes
from tests.support.harness import run, running

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def test_tritons_client_gets_its_answers_in_json_and_in_binary(tmp_path: Path) -> None:
    async def main() -> None:
        arguments = ["-m", "examples.digits.serve", "--model", "cpu", "--port", "0"]
        server = await processes.start(
            "cpu", [*arguments, "--dir", str(tmp_path / "digits")], tmp_path / "cpu.log"
        )
        try:
            config = f"""
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "digits-cpu"
kind = "cpu"
protocol = "oip"
url = "{server.url}"
model = "digits-cpu"
price = {{ per_request_usd = 0.0001 }}
[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["digits-cpu"]
policy = "cheapest"
context = {{ numeric = ["inputs[0].data"] }}
"""
            async with running(config, tmp_path) as tollway:
                client = await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(ROOT / "tests" / "support" / "triton_client.py"),
                    tollway.url.removeprefix("http://"),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                out, err = await client.communicate()
                assert client.returncode == 0, err.decode()
                spent = (await tollway.get("/_tollway/spend"))["cost_nano"]
        finally:
            server.stop()
        told = json.loads(out)
        assert told["live"] and told["ready"] and told["model_ready"]
        assert (told["name"], told["server"]) == ("digits", "tollway")
        for form in ("binary=True", "binary=False"):
            assert told[form]["id"] == "q7"
            assert told[form]["sums"] == [1.0, 1.0, 1.0]
        assert told["binary=True"]["labels"] == told["binary=False"]["labels"]
        assert "no route" in told["error"]
        assert spent == 3 * 100_000

    run(main)
