"""How long an alias takes to be served: from the registry to the first reply of the other version.

    .venv/bin/python benchmarks/alias_flip.py [--flips 20] [--poll-s 1.0]

A real `tollway serve` follows a folder registry, under a load of one request after another. The
alias `champion` goes to and fro between two versions. Each time is from the moment the alias is
written to the first reply that comes from the other version; replies are counted by version, and
one that fails ends the program.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.harness import Upstream, inference, serving  # noqa: E402
from tests.support.process import Process, free_port  # noqa: E402
from tollway.gateway.registry.folder import FolderRegistry  # noqa: E402

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
allow_anonymous = true

[registry]
kind = "folder"
poll_s = {poll_s}

[[models]]
name = "m"
backend = "gpu"
model = "m-v{{version}}"

[[backends]]
name = "gpu"
kind = "gpu"
protocol = "oip"
url = "{url}"
price = {{ per_request_usd = 0.0001 }}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["gpu"]
policy = "cheapest"
"""


async def measure(flips: int, poll_s: float) -> list[float]:
    """Return the seconds of each flip."""
    folder, upstream = Path(tempfile.mkdtemp()), Upstream()
    for version in ("1", "2"):
        (folder / "models" / "m" / version).mkdir(parents=True)
    registry, port = FolderRegistry(folder / "models"), free_port()
    await registry.set_alias("m", "champion", "1")
    async with serving(upstream) as backend, httpx.AsyncClient(trust_env=False) as client:
        file = folder / "tollway.toml"
        file.write_text(CONFIG.format(port=port, url=backend, poll_s=poll_s))
        process, url = Process(file), f"http://127.0.0.1:{port}"
        try:
            await process.ready(url)
            times = []
            for flip in range(flips + 1):
                version = "12"[flip % 2]
                await registry.set_alias("m", "champion", version)
                begun_s = time.perf_counter()
                wanted = f"/v2/models/m-v{version}/infer".encode()
                async with asyncio.timeout(60):
                    while not upstream.requests or upstream.requests[-1][1] != wanted:
                        reply = await client.post(f"{url}/v2/models/m/infer", json=inference())
                        reply.raise_for_status()
                times.append(time.perf_counter() - begun_s)
            return times[1:]  # the first is that of the start
        finally:
            process.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--poll-s", type=float, default=1.0, help="registry.poll_s")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    times = asyncio.run(measure(arguments.flips, arguments.poll_s))
    figures = {"flips": len(times), "median_s": statistics.median(times), "most_s": max(times)}
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(f"{len(times)} flips: median {figures['median_s']:.2f} s, most {max(times):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
