"""Installs the rivals from their registries, each in a folder of its own."""

import subprocess
import sys
from pathlib import Path

LITELLM = "litellm[proxy]==1.106.2"
PORTKEY = "@portkey-ai/gateway@1.15.2"


def litellm(folder: Path) -> Path:
    """Return the Python of an environment with LiteLLM's proxy; made if missing (700 MB)."""
    python = folder / "litellm" / "bin" / "python"
    if not (python.parent / "litellm").exists():
        subprocess.run(
            ["uv", "venv", "-q", "--python", sys.executable, python.parents[1]], check=True
        )
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, LITELLM], check=True)
    return python


def portkey(folder: Path) -> Path:
    """Return the folder of Portkey's gateway; installed if missing."""
    home = folder / "portkey"
    package = home / "node_modules" / "@portkey-ai" / "gateway"
    if not package.exists():
        home.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-fund", "--no-audit", "--loglevel=error"]
        subprocess.run(["npm", "install", *quiet, PORTKEY], check=True, cwd=home)
    return package
