"""Model servers that scripts/_servers installs, each in an environment of its own."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.http_client import PLAIN
from tests.support.process import free_port
from tests.support.until import until_now

SCRIPTS = Path(__file__).parents[2] / "scripts"
HOME = Path(os.environ.get("MODEL_SERVERS", Path.home() / ".cache" / "tollway-compat"))
INSTALLATION_S = 600  # 700 MB for all: that takes a minute, or several over a slow line
START_S = 200  # half a minute on a busy machine

# MLflow's own WSGI application. Its command also starts jobs, which the registry does not need.
MLFLOW = """
import sys, waitress
from mlflow.server import app
waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=4)
"""


def install(name: str) -> Path:
    """Install a server if its environment is missing or old, and return its Python.

    One process of the tests at a time does it.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            [SCRIPTS / "_servers", name],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=INSTALLATION_S,
        )
    return HOME / name / "bin" / "python"


class Mlflow:
    """A running MLflow server: its address, and the calls of somebody who registers models."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """Call its REST API; the reply must be 200."""
        url = f"{self.url}/api/2.0/mlflow/{path}"
        given: dict[str, Any] = {"params": document} if method == "GET" else {"json": document}
        reply = httpx.request(method, url, timeout=60, **given, **PLAIN)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def create(self, name: str) -> None:
        """Create a registered model."""
        self.ask("POST", "registered-models/create", {"name": name})

    def register(self, name: str, metrics: dict[str, float] | None = None) -> str:
        """Register a version, made by a run with metrics, and return its number."""
        info = self.ask("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]
        for key, value in (metrics or {}).items():
            logged = {"run_id": info["run_id"], "key": key, "value": value, "timestamp": 0}
            self.ask("POST", "runs/log-metric", logged)
        made = {"name": name, "source": "s3://models/x", "run_id": info["run_id"]}
        version = self.ask("POST", "model-versions/create", made)["model_version"]["version"]
        return str(version)

    def alias(self, name: str, alias: str, version: str) -> None:
        """Give an alias to a version."""
        given = {"name": name, "alias": alias, "version": version}
        self.ask("POST", "registered-models/alias", given)

    def aliases(self, name: str) -> dict[str, str]:
        """Return the versions by alias."""
        found = self.ask("GET", "registered-models/get", {"name": name})["registered_model"]
        return {one["alias"]: one["version"] for one in found.get("aliases", [])}

    def tags(self, name: str, version: str) -> dict[str, str]:
        """Return the tags of a version."""
        asked = {"name": name, "version": version}
        found = self.ask("GET", "model-versions/get", asked)["model_version"]
        return {one["key"]: one["value"] for one in found.get("tags", [])}


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[Mlflow]:
    """Run an MLflow server with a database in a folder, until it answers."""
    python, port = install("mlflow-registry"), free_port()
    store = f"sqlite:///{folder}/mlflow.db"
    environ = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-c", MLFLOW, str(port)], env=environ, stdout=log, stderr=log, cwd=folder
        )
    try:
        server = Mlflow(f"http://127.0.0.1:{port}")
        _until_it_answers(server.url, process, folder / "mlflow.log")
        yield server
    finally:
        process.terminate()
        process.wait()


def _until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url + "/health", timeout=60, **PLAIN).status_code == 200
        return False

    until_now(answers, within_s=START_S)
