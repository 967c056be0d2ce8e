"""Prometheus and Alertmanager as processes of their own, configured as they are shipped."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.harness import inference
from tests.support.http_client import PLAIN
from tests.support.until import until_now

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
STUCK_S = 60.0


def tool(name: str) -> str:
    """Return the path of a program that the tests need."""
    found = shutil.which(name)
    package = "prometheus" if name in {"prometheus", "promtool"} else "prometheus-alertmanager"
    assert found, f"this test needs {name}: apt-get install {package}"
    return found


def check(*command: str | Path, text: str | None = None) -> str:
    """Run a checker that must succeed; return its output."""
    done = subprocess.run(
        [tool(str(command[0])), *map(str, command[1:])],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def document(path: Path) -> Any:
    """Return a YAML file's document."""
    return yaml.safe_load(path.read_text())


def free_address() -> str:
    """Return an address of loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"127.0.0.1:{one.getsockname()[1]}"


def prometheus_config(folder: Path, gateways: list[str], alertmanager: str) -> Path:
    """Write the shipped configuration, for these addresses and at short intervals."""
    config = document(DEPLOY / "prometheus" / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = gateways
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    check("promtool", "check", "config", path)
    return path


def alertmanager_config(folder: Path, hook: str) -> Path:
    """Write the shipped configuration with `hook` as its receiver and without waiting times."""
    config = document(DEPLOY / "alertmanager" / "alertmanager.yml")
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{hook}/{receiver['name']}"}]
    for route in (config["route"], *config["route"]["routes"]):
        route.update(group_wait="1s", group_interval="1s")
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    check("amtool", "check-config", path)
    return path


@contextmanager
def running(url: str, log: Path, *command: str, ready: str = "/-/ready") -> Iterator[str]:
    """Run a program; yield its URL once the path `ready` answers."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            with httpx.Client(**PLAIN) as client:
                until_now(lambda: _ready(client, url + ready, process, log))
            yield url
        finally:
            process.terminate()


def _ready(client: httpx.Client, url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def prometheus(folder: Path, config: Path, *options: str) -> Iterator[str]:
    """Run Prometheus; yield its URL."""
    address = free_address()
    with running(
        f"http://{address}",
        folder / "prometheus.log",
        tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        *options,
        f"--web.listen-address={address}",
    ) as url:
        yield url


@contextmanager
def alertmanager(folder: Path, config: Path) -> Iterator[str]:
    """Run Alertmanager, alone; yield its URL."""
    address = free_address()
    with running(
        f"http://{address}",
        folder / "alertmanager.log",
        tool("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ) as url:
        yield url


@contextmanager
def gateway(folder: Path, address: str, config: str) -> Iterator[str]:
    """Run a gateway; yield its URL."""
    path = folder / "tollway.toml"
    path.write_text(config)
    command = (sys.executable, "-m", "tollway", "serve", str(path), "--listen", address)
    with running(f"http://{address}", folder / "gateway.log", *command, ready="/readyz") as url:
        yield url


def query(url: str, expr: str) -> list[dict[str, Any]]:
    """Return what Prometheus answers to an instant query."""
    reply = httpx.post(f"{url}/api/v1/query", data={"query": expr}, **PLAIN)
    assert reply.status_code == 200, f"{expr}: {reply.text}"
    found: list[dict[str, Any]] = reply.json()["data"]["result"]
    return found


def ask(gateway: str, times: int) -> None:
    """Send a gateway so many requests, one after the other."""
    with httpx.Client(**PLAIN) as client:
        for n in range(times):
            client.post(f"{gateway}/v2/models/m/infer", json=inference(float(n)))
