"""The log: JSON lines with the decision's id and without secrets."""

import io
import logging
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.http_client import http_client
from tests.support.tracing import ALWAYS, PARENT, TRACE
from tollway.gateway import settings as config
from tollway.gateway.observability import log_format
from tollway.gateway.security.keys import hash_key
from tollway.gateway.wiring import build

LOGGED = '[log]\nformat = "json"\nrequests = "{requests}"\n'


def lines(log: io.StringIO, logger: str = "tollway.requests") -> list[dict[str, Any]]:
    found = [orjson.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in found if line["logger"] == logger]


@pytest.mark.integration
def test_a_line_for_each_request_with_its_decision(tmp_path: Path, log: io.StringIO) -> None:
    async def main() -> Any:
        async with serving(Upstream()) as a:
            more = LOGGED.format(requests="all")
            async with running(two_backends(a, a, more=more), tmp_path) as tollway:
                reply = await tollway.infer()
                await tollway.infer(path="/nowhere")
                return reply.headers["x-tollway-decision"], tollway

    decisions: list[str] = []

    async def keep() -> None:
        decisions.append((await main())[0])

    with redirect_stderr(log):
        run(keep)
    answered, missed = lines(log)
    assert answered["message"] == "POST /v2/models/m/infer 200"
    assert answered["decision"] == decisions[0]
    assert (answered["route"], answered["backend"], answered["outcome"]) == ("m", "cheap", "ok")
    assert (answered["cost_nano"], answered["level"]) == (100_000, "info")
    assert 0 < answered["duration_s"] < 60
    assert (missed["status"], missed["route"]) == (404, "")
    assert "decision" not in missed


@pytest.mark.integration
def test_only_what_failed_where_that_is_asked_for(tmp_path: Path, log: io.StringIO) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            more = LOGGED.format(requests="failed")
            async with running(two_backends(a, a, more=more), tmp_path) as tollway:
                await tollway.infer()
                await tollway.infer(path="/nowhere")

    with redirect_stderr(log):
        run(main)
    assert [line["status"] for line in lines(log)] == [404]


KEY = "tw_0123456789abcdef"
SECRETS = ("body-secret", "query-secret", "cookie-secret", "reply-secret", "admin-secret-16ch", KEY)


@pytest.mark.integration
def test_no_key_no_body_no_query_and_no_field_is_logged_or_traced(
    tmp_path: Path, log: io.StringIO
) -> None:
    """Good and bad requests, failures and wrong keys, at the level of most detail."""
    exporter = InMemorySpanExporter()

    async def main() -> None:
        broken = Upstream(status=500, body=b'{"error": "reply-secret"}')
        odd = Upstream(body=b'{"outputs": "reply-secret"}')
        good = Upstream(headers=[(b"set-cookie", b"reply-secret")])
        async with serving(broken) as a, serving(odd) as b, serving(good) as c:
            server = 'admin_key = "admin-secret-16ch"'
            tenant = f'[[tenants]]\nname = "acme"\nkey_hash = "{hash_key(KEY)}"\n'
            more = tenant + LOGGED.format(requests="all") + ALWAYS
            for first, second in ((a, b), (a, a), (c, c)):
                toml = two_backends(first, second, server=server, more=more)
                gateway = build(
                    config.parse(toml, {}, folder=tmp_path),
                    trace=lambda endpoint: SimpleSpanProcessor(exporter),
                )
                async with serving(gateway.app, lifespan="on") as url:
                    await call(url)

    async def call(url: str) -> None:
        async with http_client() as client:
            path = f"{url}/v2/models/m/infer?key=query-secret"
            body = b'{"id":"body-secret","inputs":[{"name":"x","shape":[1],"datatype":"FP32",'
            fields = {"cookie": "cookie-secret", "traceparent": PARENT}
            for key in (KEY, "admin-secret-16ch", f"{KEY}x"):
                for rest in (b'"data":[1]}]}', b'"data":["body-secret"]}]}', b"body-secret"):
                    headers = {**fields, "authorization": f"Bearer {key}"}
                    await client.post(path, content=body + rest, headers=headers)
            admin = {"authorization": "Bearer admin-secret-16ch"}
            feedback = {"decision": "0.0.0000", "label": "body-secret"}
            await client.post(f"{url}/_tollway/feedback", json=feedback, headers=admin)

    with redirect_stderr(log):
        run(main)
    told = log.getvalue()
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert {line["status"] for line in lines(log)} >= {200, 400, 401, 500}
    assert all(line["trace_id"] == TRACE for line in lines(log))
    assert "POST /v2/models/m/infer" in spans
    for secret in SECRETS:
        assert secret not in told
        assert secret not in spans


def record(**extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("tollway.x", logging.WARNING, "", 0, "it is %s", ("so",), None)
    vars(made).update(extra)
    return made


def test_a_record_in_both_forms() -> None:
    try:
        raise ValueError("no")
    except ValueError as exc:
        failed = record(decision="d1")
        failed.exc_info = (ValueError, exc, exc.__traceback__)

    line = orjson.loads(log_format.Json().format(failed))
    assert (line["message"], line["level"], line["decision"]) == ("it is so", "warning", "d1")
    assert line["exception"].endswith("ValueError: no")
    text = log_format.Text().format(record(decision="d1", backend=""))
    assert text.endswith("WARNING tollway.x: it is so decision=d1")
    assert log_format.Text().format(failed).endswith("ValueError: no")
