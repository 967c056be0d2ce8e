"""The contestants: how each is started, and which headers its requests need."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.throughput import cases
from benchmarks.throughput.cases import Case
from benchmarks.throughput.processes import free_port

BENCHMARKS = Path(__file__).parents[1]
FLOOR = BENCHMARKS / "floor.py"
CONFIG = BENCHMARKS / "gateway.toml"
ADMIN_KEY = "the admin key of the benchmark"
NGINX_NAME, TOLLWAY, BESIDE = "nginx as the proxy", "Tollway", "Tollway beside"
SIZES = ("small", "medium", "large")  # the models of the cascade

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
# Streams are relayed event by event: their upstream sends `x-accel-buffering: no`.
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
# The replies of a cascade's models: the cheaper a model is, the more often it is unsure and wrong.
# The reply to nginx as the proxy has the same size.
UPSTREAM = """
  split_clients $request_id $small {{ 60% "{sure}"; * "{unsure}"; }}
  split_clients $request_id $medium {{ 85% "{sure}"; * "{unsure}"; }}
  upstream streams {{ server 127.0.0.1:{streams}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location = /status {{ stub_status; }}
    location /v2/ {{ return 200 '{oip}'; }}
    location /v2/models/cascade/ {{ return 200 '{scores[0]}{sure}{scores[1]}'; }}
    location /small/ {{ return 200 '{scores[0]}$small{scores[1]}'; }}
    location /medium/ {{ return 200 '{scores[0]}$medium{scores[1]}'; }}
    location /large/ {{ return 200 '{scores[0]}{sure}{scores[1]}'; }}
    location /v1/ {{
      if ($http_accept ~ event-stream) {{ rewrite ^ {prefix}$uri last; }}
      return 200 '{chat}';
    }}
    location {prefix}/ {{
      proxy_pass http://streams; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; add_header x-accel-buffering no;
    }}
  }}
"""
NO_STREAMS = 9  # discard: nothing listens there

LITELLM = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
  - model_name: m-stream
    litellm_params:
      {{model: openai/m, api_base: "http://127.0.0.1:{upstream}{prefix}/v1", api_key: none}}
general_settings: {{master_key: sk-bench}}
"""
MLFLOW = """
endpoints:
  - name: m
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: m
      config: {{openai_api_base: "http://127.0.0.1:{upstream}/v1", openai_api_key: none}}
  - name: m-stream
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: m
      config:
        {{openai_api_base: "http://127.0.0.1:{upstream}{prefix}/v1", openai_api_key: none}}
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that stands between clients and the upstream.

    `cases` are those that it supports, by name, as it is asked for them; `headers` the fields that
    its requests need; `least_s` the least duration of a load in seconds, the first of which warms
    it up.
    """

    name: str
    command: list[str]
    port: int
    cases: Mapping[str, Case]
    environ: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    least_s: int = 1


CHATS = {case.name: case for case in (cases.CHAT, cases.STREAM)}

Build = Callable[[Path, int], Contestant]
"""Makes a contestant, given a folder of its own and the upstream's port."""


def nginx(folder: Path, locations: str) -> list[str]:
    """Return the command of an nginx with these servers."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, locations=locations))
    return ["nginx", "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]


def upstream(folder: Path, port: int, streams: int = NO_STREAMS) -> list[str]:
    """Return the command of the upstream: it answers at once, by the request's path.

    Requests for streams are passed on to `stream_upstream.py` on port `streams`.
    """
    locations = UPSTREAM.format(
        port=port,
        streams=streams,
        prefix=cases.STREAM_PREFIX,
        oip=cases.OIP_REPLY,
        chat=cases.CHAT_REPLY,
        scores=cases.SCORES_REPLY.split("%s"),
        sure=cases.SURE,
        unsure=cases.UNSURE,
    )
    return nginx(folder, locations)


def streams(port: int) -> list[str]:
    """Return the command of the upstream of streams."""
    return [sys.executable, str(BENCHMARKS / "throughput" / "stream_upstream.py"), str(port)]


def proxy(folder: Path, to: int) -> Contestant:
    """nginx as the proxy: the upper limit of a proxy on this machine."""
    port = free_port()
    command = nginx(folder, PROXY.format(port=port, upstream=to))
    return Contestant(NGINX_NAME, command, port, cases.CASES)


def floor(kind: str, name: str) -> Build:
    """Return a function that starts one of floor.py's servers."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        options = ["--port", str(port), "--upstream", f"http://127.0.0.1:{to}"]
        supported = cases.CASES if kind == "relay" else {cases.SMALL.name: cases.SMALL}
        return Contestant(name, [sys.executable, str(FLOOR), kind, *options], port, supported)

    return build


def gateway(folder: Path, to: int, workers: int = 1, python: str = sys.executable) -> Contestant:
    """Tollway with every feature on, as in gateway.toml."""
    port = free_port()
    up = f"http://127.0.0.1:{to}"
    environ = {
        "TOLLWAY_SERVER__ADMIN_KEY": ADMIN_KEY,
        "TOLLWAY_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
        "TOLLWAY_JOURNAL__DIR": str(folder / "journal"),
        "TOLLWAY_STATE__DIR": str(folder / "state"),
        **{f"TOLLWAY_BACKENDS__{name}__URL": up for name in "ABC"},
        **{f"TOLLWAY_BACKENDS__CHAT_{name}__URL": f"{up}/v1" for name in "ABC"},
        **{f"TOLLWAY_BACKENDS__{size.upper()}__URL": f"{up}/{size}" for size in SIZES},
    }
    command = [python, "-m", "tollway", "serve", str(CONFIG)]
    command += ["--listen", f"127.0.0.1:{port}", "--workers", str(workers)]
    name = TOLLWAY if workers == 1 else f"{TOLLWAY}, {workers} workers"
    return Contestant(name, command, port, cases.CASES, environ, {"authorization": "Bearer bench"})


def beside(checkout: Path, python: str) -> Build:
    """Return a function that starts the Tollway of another checkout, as `gateway` does."""

    def build(folder: Path, to: int) -> Contestant:
        one, root = gateway(folder, to, python=python), str(checkout.resolve())
        environ = {**one.environ, "PYTHONPATH": root}
        return replace(one, name=BESIDE, command=["env", "-C", root, *one.command], environ=environ)

    return build


def litellm(program: Path) -> Build:
    """Return a function that starts LiteLLM's proxy with `litellm --config`, without a database."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        config = folder / "litellm.yaml"
        config.write_text(LITELLM.format(upstream=to, prefix=cases.STREAM_PREFIX))
        command = [str(program), "--config", str(config)]
        command += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        headers = {"authorization": "Bearer sk-bench"}
        stream = asking(cases.STREAM, cases.CHAT_PATH, "m-stream")
        # Its first requests take seconds, and later ones up to a second on a busy machine.
        return Contestant(
            "LiteLLM proxy", command, port, CHATS | {stream.name: stream}, environ, headers, 8
        )

    return build


def portkey(package: Path) -> Build:
    """Return a function that starts Portkey's gateway with its own command."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        script = package / "build" / "start-server.js"
        host = "x-portkey-custom-host"
        up = f"http://127.0.0.1:{to}"
        headers = {"authorization": "Bearer none", "x-portkey-provider": "openai"}
        supported = {
            "chat": replace(cases.CHAT, headers={host: f"{up}/v1"}),
            "stream": replace(cases.STREAM, headers={host: f"{up}{cases.STREAM_PREFIX}/v1"}),
        }
        environ = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
        command = ["node", str(script), f"--port={port}", "--headless"]
        return Contestant("Portkey gateway", command, port, supported, environ, headers, 3)

    return build


def mlflow(program: Path) -> Build:
    """Return a function that starts MLflow's gateway with its own command."""

    def build(folder: Path, to: int) -> Contestant:
        port = free_port()
        config = folder / "mlflow.yaml"
        config.write_text(MLFLOW.format(upstream=to, prefix=cases.STREAM_PREFIX))
        command = [str(program), "gateway", "start", "--config-path", str(config)]
        command += ["--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
        supported = {
            "chat": asking(cases.CHAT, "/v1/chat/completions", "m"),
            "stream": asking(cases.STREAM, "/v1/chat/completions", "m-stream"),
        }
        return Contestant("MLflow gateway", command, port, supported, least_s=3)

    return build


def asking(case: Case, path: str, model: str) -> Case:
    """Return a chat case as it is sent to another path, for another model."""
    bodies = tuple(json.dumps({**json.loads(body), "model": model}) for body in case.bodies)
    return replace(case, path=path, bodies=bodies)
