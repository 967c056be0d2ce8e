"""A live gateway with the real Prometheus and Alertmanager: traffic raises an alert."""

import asyncio
import http.server
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import monitors
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, serving
from tests.support.http_client import PLAIN
from tests.support.until import until_now

pytestmark = pytest.mark.integration

Told = queue.Queue[tuple[str, dict[str, Any]]]


@contextmanager
def webhook() -> Iterator[tuple[str, Told]]:
    """Receive what Alertmanager sends: (its URL, the queue of (path, document))."""
    told: Told = queue.Queue()

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            told.put((self.path, json.loads(self.rfile.read(length))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", told
        finally:
            server.shutdown()
            thread.join()


def page_of(told: Told, threshold: str) -> dict[str, Any]:
    """Return the firing alert of a threshold once Alertmanager sends it, with its path."""
    while True:
        path, document = told.get(timeout=monitors.STUCK_S)
        for alert in document["alerts"]:
            if alert["labels"].get("threshold") == threshold and alert["status"] == "firing":
                return {"path": path, "version": document["version"], **alert}


def test_a_budget_that_traffic_uses_up_reaches_the_webhook(tmp_path: Path) -> None:
    limited = budget("few", "0.1")

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(
                a, b, policy="most_accurate", more=limited, ledger="sqlite:///tollway.db"
            )
            await asyncio.to_thread(watch, config, tmp_path)

    run(main)


def watch(config: str, folder: Path) -> None:
    """Use the budget up step by step, and wait for the alert of each threshold."""
    address = monitors.free_address()
    with (
        webhook() as (hook, told),
        monitors.gateway(folder, address, config) as gateway,
        monitors.alertmanager(folder, monitors.alertmanager_config(folder, hook)) as receiver,
    ):
        watching = monitors.prometheus_config(folder, [address], receiver.removeprefix("http://"))
        with monitors.prometheus(folder, watching) as prometheus:
            monitors.ask(gateway, 50)
            until_now(lambda: value(prometheus, USED) == 0.5)
            assert not monitors.query(prometheus, 'ALERTS{alertname="TollwayBudgetThreshold"}')
            monitors.ask(gateway, 30)
            info = page_of(told, "80")
            assert info["path"] == "/record"
            assert info["annotations"]["summary"] == "Budget few is at 80%: $0.08 of $0.10 spent"
            monitors.ask(gateway, 30)  # more than there is money for
            page = page_of(told, "100")
            assert (page["path"], page["version"]) == ("/page", "4")
            assert page["labels"]["severity"] == "critical"
            assert page["annotations"]["runbook_url"].endswith("TollwayBudgetThreshold.md")
            scraped = httpx.get(f"{gateway}/metrics", **PLAIN).text
            assert monitors.check("promtool", "check", "metrics", text=scraped) == ""


USED = 'tollway:budget_used:ratio{budget="few"}'


def value(url: str, expr: str) -> float | None:
    found = monitors.query(url, expr)
    return float(found[0]["value"][1]) if found else None
