"""The gateways that the situations run through, each configured for the same upstream."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.situations.situation import MODELS

KEY = "sk-bench"

PRICE = """price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0, per_request_usd = 0.001 }
"""
TOLLWAY = """
[server]
allow_anonymous = true
cors = {{ origins = ["*"] }}

[ledger]
url = "memory://"

[journal]
dir = "{folder}/journal"

[state]
dir = "{folder}/state"
"""
BACKEND = """
[[backends]]
name = "{name}"
kind = "api"
protocol = "{protocol}"
url = "http://127.0.0.1:{upstream}{prefix}"
{price}
"""
ROUTE = """
[[routes]]
name = "{name}"
path = "{path}"
protocol = "{protocol}"
backends = ["{backend}"]
{more}
"""
BACKENDS = (("openai", "openai", "/v1"), ("anthropic", "anthropic", ""),
            ("gemini", "gemini", "/v1beta"))  # fmt: skip
ROUTES = (
    ("everything", "/v1/*", "openai", 'models = "*"'),
    ("batches", "/v1/batches", "openai", ""),
    ("azure", "/openai/*", "openai", ""),
    ("claude", "/v1/messages", "anthropic", ""),
    ("gemini", "/v1beta/models/*", "gemini", ""),
)

LITELLM = """
model_list:
  - model_name: "{gemini}"
    litellm_params: {{model: "gemini/{gemini}", api_base: "{up}/v1beta", api_key: none}}
  - model_name: "{anthropic}"
    litellm_params: {{model: "anthropic/{anthropic}", api_base: "{up}", api_key: none}}
  - model_name: "{openai}"
    litellm_params: {{model: "openai/{openai}", api_base: "{up}/v1", api_key: none}}
  - model_name: "{embeddings}"
    litellm_params: {{model: "openai/{embeddings}", api_base: "{up}/v1", api_key: none}}
  - model_name: "{completions}"
    litellm_params:
      {{model: "text-completion-openai/{completions}", api_base: "{up}/v1", api_key: none}}
files_settings:
  - {{custom_llm_provider: openai, api_base: "{up}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""
MLFLOW = """
endpoints:
  - name: {openai}
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: {openai}
      config: {{openai_api_base: "{up}/v1", openai_api_key: none}}
  - name: {embeddings}
    endpoint_type: llm/v1/embeddings
    model:
      provider: openai
      name: {embeddings}
      config: {{openai_api_base: "{up}/v1", openai_api_key: none}}
  - name: {completions}
    endpoint_type: llm/v1/completions
    model:
      provider: openai
      name: {completions}
      config: {{openai_api_base: "{up}/v1", openai_api_key: none}}
"""


@dataclass(frozen=True, slots=True)
class Gateway:
    """How a gateway is started, and the header fields that it wants, by dialect."""

    name: str
    version: str
    command: list[str]
    headers: Mapping[str, Mapping[str, str]]
    environ: Mapping[str, str] = field(default_factory=dict)


def everywhere(**headers: str) -> dict[str, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return dict.fromkeys(MODELS, named)


def tollway(folder: Path, port: int, upstream: int, version: str) -> Gateway:
    """Tollway: one wildcard route, and one route for each other dialect."""
    text = TOLLWAY.format(folder=folder)
    for name, protocol, prefix in BACKENDS:
        text += BACKEND.format(
            name=name, protocol=protocol, prefix=prefix, upstream=upstream, price=PRICE
        )
    for name, path, protocol, more in ROUTES:
        text += ROUTE.format(name=name, path=path, protocol=protocol, backend=protocol, more=more)
    config = folder / "tollway.toml"
    config.write_text(text)
    command = [sys.executable, "-m", "tollway", "serve", str(config)]
    command += ["--listen", f"127.0.0.1:{port}"]
    return Gateway("Tollway", version, command, everywhere())


def litellm(program: Path, folder: Path, port: int, upstream: int, version: str) -> Gateway:
    """LiteLLM's proxy with a configuration file, without a database."""
    config = folder / "litellm.yaml"
    up = f"http://127.0.0.1:{upstream}"
    config.write_text(LITELLM.format(up=up, key=KEY, **MODELS))
    command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    environ = {
        **{"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        # Where it takes the address of calls that name no model, such as files.
        **{"OPENAI_API_KEY": "none", "OPENAI_API_BASE": f"{up}/v1", "OPENAI_BASE_URL": f"{up}/v1"},
    }
    return Gateway("LiteLLM", version, command, everywhere(authorization=f"Bearer {KEY}"), environ)


def portkey(package: Path, port: int, upstream: int, version: str) -> Gateway:
    """Portkey's gateway: the client's header fields name the upstream."""
    up = f"http://127.0.0.1:{upstream}"
    bases = {"openai": f"{up}/v1", "anthropic": f"{up}/v1", "gemini": f"{up}/v1beta"}
    providers = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
    headers = {
        dialect: {
            "authorization": "Bearer none",
            "x-portkey-provider": providers[dialect],
            "x-portkey-custom-host": base,
        }
        for dialect, base in bases.items()
    }
    command = ["node", str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    environ = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    return Gateway("Portkey", version, command, headers, environ)


def mlflow(program: Path, folder: Path, port: int, upstream: int, version: str) -> Gateway:
    """MLflow's gateway with a configuration file."""
    config = folder / "mlflow.yaml"
    config.write_text(MLFLOW.format(up=f"http://127.0.0.1:{upstream}", **MODELS))
    command = [str(program), "gateway", "start", "--config-path", str(config)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    return Gateway("MLflow", version, command, everywhere())


def version_of_python(program: Path, package: str) -> str:
    """Return the version of a package that is installed beside a program."""
    found = sorted(program.parents[1].glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found[-1].name.removeprefix(f"{package}-").removesuffix(".dist-info")


def version_of_node(package: Path) -> str:
    return str(json.loads((package / "package.json").read_text())["version"])
