"""Who is measured: how each is started, and what a request to it must carry."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.throughput import cases
from benchmarks.throughput.processes import free_port

BENCHMARKS = Path(__file__).parents[1]
FLOOR = BENCHMARKS / "floor.py"
CONFIG = BENCHMARKS / "gateway.toml"

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 8m;
  client_body_buffer_size 2m; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {locations}
}}
"""
PROXY = """
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_header Date;
    }}
  }}
"""
ANSWER = """
  server {{
    listen 127.0.0.1:{port}; root {folder};
    location /v2 {{ default_type application/json; return 200 '{oip}'; }}
    location /v1 {{
      default_type application/json;
      if ($http_accept ~ event-stream) {{ rewrite ^ /frames last; }}
      return 200 '{chat}';
    }}
    location = /frames {{ default_type text/event-stream; return 200 '{frames}'; }}
  }}
"""

LITELLM = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
general_settings: {{master_key: sk-bench}}
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that stands between clients and the upstream.

    `names` are the cases it can be asked; `headers` what it wants of each request; `warm_s` how
    long it is asked before it is measured.
    """

    name: str
    command: list[str]
    port: int
    names: frozenset[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    warm_s: int = 1


ALL = frozenset(case.name for case in (cases.SMALL, *cases.BODIES, cases.CHAT, cases.STREAM))
CHAT_ONLY = frozenset((cases.CHAT.name, cases.STREAM.name))
ANSWERED = frozenset((cases.CHAT.name,))
FIXED = frozenset((cases.SMALL.name,))

Build = Callable[[Path, int], Contestant]
"""Makes a contestant, given a folder of its own and the upstream's port."""


def nginx(folder: Path, locations: str) -> list[str]:
    """Return the command of an nginx with these servers."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, locations=locations))
    return ["nginx", "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]


def upstream(folder: Path, port: int) -> list[str]:
    """Return the command of the upstream: it answers at once, by the path it is asked at."""
    replies = {"oip": cases.OIP_REPLY, "chat": cases.CHAT_REPLY, "frames": cases.frames()}
    return nginx(folder, ANSWER.format(folder=folder, port=port, **replies))


def proxy(folder: Path, to: int) -> Contestant:
    """nginx as the proxy: the limit of what a proxy can do here."""
    port = free_port()
    return Contestant(
        "nginx as the proxy", nginx(folder, PROXY.format(port=port, upstream=to)), port, ALL
    )


def floor(kind: str, name: str) -> Build:
    """Return the maker of one of floor.py's servers."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        options = ["--port", str(port), "--upstream", f"http://127.0.0.1:{to}"]
        names = ALL if kind == "relay" else FIXED
        return Contestant(name, [sys.executable, str(FLOOR), kind, *options], port, names)

    return build


def gateway(folder: Path, to: int, workers: int = 1) -> Contestant:
    """Tollway with everything on, as gateway.toml has it."""
    port = free_port()
    up = f"http://127.0.0.1:{to}"
    environ = {
        "TOLLWAY_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
        "TOLLWAY_JOURNAL__DIR": str(folder / "journal"),
        "TOLLWAY_STATE__DIR": str(folder / "state"),
        **{f"TOLLWAY_BACKENDS__{name}__URL": up for name in "ABC"},
        **{f"TOLLWAY_BACKENDS__CHAT_{name}__URL": f"{up}/v1" for name in "ABC"},
    }
    command = [sys.executable, "-m", "tollway", "serve", str(CONFIG)]
    command += ["--listen", f"127.0.0.1:{port}", "--workers", str(workers)]
    name = "Tollway" if workers == 1 else f"Tollway, {workers} workers"
    return Contestant(name, command, port, ALL, environ, {"authorization": "Bearer bench"})


def litellm(python: Path) -> Build:
    """Return the maker of LiteLLM's proxy, as `litellm --config` starts it, without a database."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        config = folder / "litellm.yaml"
        config.write_text(LITELLM.format(upstream=to))
        command = [str(python.parent / "litellm"), "--config", str(config)]
        command += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        headers = {"authorization": "Bearer sk-bench"}
        # Its first requests take seconds.
        return Contestant("LiteLLM proxy", command, port, CHAT_ONLY, environ, headers, 8)

    return build


def portkey(package: Path) -> Build:
    """Return the maker of Portkey's gateway, as its own command starts it."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        script = package / "build" / "start-server.js"
        headers = {
            "authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{to}/v1",
        }
        environ = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
        command = ["node", str(script), f"--port={port}", "--headless"]
        # It answers this upstream's streams with 500 (`immutable`, in its own updateHeaders).
        return Contestant("Portkey gateway", command, port, ANSWERED, environ, headers)

    return build
