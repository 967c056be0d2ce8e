"""Installs the rivals from their registries, each in its own folder."""

import json
import subprocess
import sys
from pathlib import Path

LITELLM = "litellm==1.110.2"
ABSENT = ("litellm-proxy", "litellm-enterprise", "pyroscope-io")
"""Parts of its extra that are not on PyPI, or are a profiler."""
NEEDS = """
from importlib.metadata import requires
for one in requires("litellm"):
    requirement, _, marker = one.partition(";")
    if "extra == 'proxy'" in marker:
        marker = marker.replace("extra == 'proxy'", "").strip().removesuffix("and").strip()
        print(requirement.strip() + (f"; {marker}" if marker else ""))
"""
MLFLOW = "mlflow[gateway]==3.17.2"
# Portkey's own choice of its HTTP server is newer, and answers streams with 500 (`immutable`, in
# Portkey's updateHeaders).
PORTKEY = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    "overrides": {"@hono/node-server": "1.14.1"},
}


def litellm(folder: Path) -> Path:
    """Return the command of LiteLLM's proxy; installed if missing (700 MB).

    Some parts of the extra `proxy` are not on PyPI; the rest of it runs without them.
    """
    made = _installed(folder / "litellm-newest", LITELLM, "litellm")
    done = made.parents[1] / "parts"
    if not done.exists():
        python = made.parent / "python"
        needs = subprocess.run([python, "-c", NEEDS], check=True, capture_output=True, text=True)
        parts = [one for one in needs.stdout.splitlines() if not one.startswith(ABSENT)]
        subprocess.run([python, "-m", "pip", "install", "-q", *parts], check=True)
        done.write_text("\n".join(parts))
    return made


def mlflow(folder: Path) -> Path:
    """Return MLflow's command; installed if missing (900 MB)."""
    return _installed(folder / "mlflow", MLFLOW, "mlflow")


def _installed(home: Path, requirement: str, command: str) -> Path:
    """Return a command of a package in an environment of its own, made if the command is missing.

    It has the Python that runs the benchmark.
    """
    made = home / "bin" / command
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "-q"]
        subprocess.run([*pip, requirement], check=True)
    return made


def portkey(folder: Path) -> Path:
    """Return the folder of Portkey's gateway; installed if missing."""
    home = folder / "portkey"
    package = home / "node_modules" / "@portkey-ai" / "gateway"
    if not package.exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text(json.dumps(PORTKEY))
        quiet = ["--no-fund", "--no-audit", "--loglevel=error"]
        subprocess.run(["npm", "install", *quiet], check=True, cwd=home)
    return package
