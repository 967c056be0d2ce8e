"""What `tollway serve` imports: of the large libraries, only those that its configuration uses."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]

# Builds the gateway of each configuration, and prints which libraries each loaded besides.
PROGRAM = """
import json, sys
from tollway.gateway.cli import main, serve
from tollway.gateway.settings import parse
from tollway.gateway.wiring import build

libraries, *texts = json.load(sys.stdin)
before = set()
for text in texts:
    gateway = build(parse(text, {}))
    gateway.journal.close()
    loaded = set(libraries) & set(sys.modules)
    print(json.dumps(sorted(loaded - before)))
    before = loaded
"""
BASE = """
[ledger]
url = "memory://"
[server]
allow_anonymous = true
[journal]
dir = "{folder}/journal"
[state]
dir = "{folder}/state"

[[backends]]
name = "one"
kind = "cpu"
protocol = "oip"
url = "https://127.0.0.1:9"
price = {{ device_usd_per_hour = 2.5, concurrency = 8 }}
http2 = false

[[routes]]
name = "m"
path = "/m"
protocol = "oip"
backends = ["one"]
policy = "lagrangian"
policy_options = {{ head = "ridge" }}
"""
# What is changed in BASE, and the libraries that the gateway then loads besides.
CASES = [
    ("", "", set()),
    ("memory://", "sqlite:///{folder}/ledger.db", {"sqlite3"}),
    ('"ridge"', '"vowpal"', {"vowpalwabbit"}),
    ("http2 = false", "http2 = true", {"httpcore2", "httpx"}),
    ("[server]", '[tracing]\nendpoint = "http://127.0.0.1:9"\n[server]', {"opentelemetry"}),
    ("memory://", "redis://127.0.0.1:9/0", {"redis"}),  # last: redis itself imports opentelemetry
]
NEVER = {"genai_prices", "polars", "ray"}


def test_only_the_libraries_that_the_configuration_uses_are_loaded(tmp_path: Path) -> None:
    libraries = set[str]().union(NEVER, *(used for _, _, used in CASES))
    texts = [BASE.replace(old, new, 1) if old else BASE for old, new, _ in CASES]
    texts = [text.format(folder=tmp_path) for text in texts]

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([sorted(libraries), *texts]),
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    loaded = [set(json.loads(line)) for line in done.stdout.splitlines()]
    assert loaded == [used for _, _, used in CASES]
