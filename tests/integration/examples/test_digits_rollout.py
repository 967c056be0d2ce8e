"""The tutorial on rollouts: a worse version is sent back, by the commands that it shows."""

import asyncio
from pathlib import Path

import pytest

from examples.digits import processes, rollout
from tests.support.process import Process, free_port
from tollway.gateway.cli.main import main as cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CONFIG = Path(rollout.__file__).with_name("rollout.toml")


def test_a_worse_version_of_the_digits_is_rolled_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        models, running = str(tmp_path / "models"), []
        url = f"http://127.0.0.1:{free_port()}"
        gateway = None
        try:
            for name, model in (("v1", "cpu"), ("v2", "rules")):
                arguments = ["-m", "examples.digits.serve", "--model", model, "--dir", models]
                running.append(await processes.start(name, arguments, tmp_path / f"{name}.log"))
            text = CONFIG.read_text().replace("127.0.0.1:8080", url.removeprefix("http://"))
            for port, server in zip((9001, 9002), running, strict=True):
                text = text.replace(f"http://127.0.0.1:{port}", server.url)
            config = tmp_path / "rollout.toml"
            config.write_text(text.replace(".tollway/rollout", str(tmp_path)))
            gateway = Process(config)
            await gateway.ready(url)
            environ = {"TOLLWAY_URL": url, "TOLLWAY_KEY_FILE": str(tmp_path / "state/admin.key")}
            words = ["rollout", "start", "v2", "--why", "the scorecard is faster"]
            assert await asyncio.to_thread(cli, words, environ) == 0
            assert await rollout.play(url, "v2") == "rolled_back"
            assert await asyncio.to_thread(cli, ["rollout", "history", "v2"], environ) == 0
            assert await asyncio.to_thread(cli, ["rollout", "list"], environ) == 0
        finally:
            if gateway is not None:
                gateway.kill()
            for server in running:
                server.stop()

    asyncio.run(main())
    out = capsys.readouterr().out
    assert "v2: progressing, step 1 of 3; v2 gets 10% of v1" in out
    assert "quality is worse than tolerated" in out
    assert "rolled_back" in out
