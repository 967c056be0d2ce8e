"""The real Prometheus scrapes a tracing gateway and stores its exemplars."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import monitors
from tests.support.configs import two_backends
from tests.support.harness import inference
from tests.support.until import until_now

pytestmark = pytest.mark.integration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_latency_leads_to_its_trace(tmp_path: Path) -> None:
    address, nobody = monitors.free_address(), monitors.free_address()
    more = f'[tracing]\nendpoint = "http://{nobody}"\nsample = 0.0\n'
    config = two_backends(f"http://{nobody}", f"http://{nobody}", more=more)
    with monitors.gateway(tmp_path, address, config) as gateway:
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        url = f"{gateway}/v2/models/m/infer"
        httpx.post(url, json=inference(), headers=headers, trust_env=False)
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        linked = httpx.get(f"{gateway}/metrics", headers=accept, trust_env=False)
        assert linked.headers["content-type"].startswith("application/openmetrics-text")
        watching = monitors.prometheus_config(tmp_path, [address], nobody)
        keeps = "--enable-feature=exemplar-storage"
        with monitors.prometheus(tmp_path, watching, keeps) as prometheus:
            (found, *_) = until_now(lambda: exemplars(prometheus))
            assert found["exemplars"][0]["labels"]["trace_id"] == TRACE
            (up,) = monitors.query(prometheus, 'up{job="tollway"}')
            assert up["value"][1] == "1"


def exemplars(prometheus: str) -> list[dict[str, Any]]:
    """Return the exemplars that Prometheus has."""
    asked = {"query": "tollway_gateway_duration_seconds_bucket", "start": "0", "end": "4102444800"}
    reply = httpx.get(f"{prometheus}/api/v1/query_exemplars", params=asked, trust_env=False)
    found: list[dict[str, Any]] = reply.json()["data"]
    return found
