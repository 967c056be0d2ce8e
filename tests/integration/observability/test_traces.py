"""Traces: a request as spans, its context passed on, its figures linked to it."""

import gzip
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.http_client import http_client
from tests.support.streams import ASK, CONFIG, END, Model, chunk, usage
from tests.support.tracing import ALWAYS, CALLER, PARENT, TRACE
from tollway.gateway import settings as config
from tollway.gateway.observability.request_trace import parent
from tollway.gateway.wiring import build

pytestmark = pytest.mark.integration

OIP = "POST /v2/models/m/infer"


class Traced:
    """A gateway whose spans are kept in memory."""

    def __init__(self, toml: str, folder: Path) -> None:
        self.exporter = InMemorySpanExporter()
        self.gateway = build(
            config.parse(toml, {}, folder=folder),
            trace=lambda endpoint: SimpleSpanProcessor(self.exporter),
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found


async def asked(traced: Traced, *calls: dict[str, Any]) -> list[httpx.Response]:
    async with serving(traced.gateway.app, lifespan="on") as url:
        async with http_client() as client:
            replies = []
            for call in calls:
                path = call.pop("path", "/v2/models/m/infer")
                call.setdefault("json", inference())
                replies.append(await client.request(call.pop("method", "POST"), url + path, **call))
            return replies


def sent(upstream: Upstream, number: int = -1) -> str:
    return upstream.requests[number][2][b"traceparent"].decode()


def test_a_request_is_a_tree_of_spans_under_its_callers(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a:
            traced = Traced(two_backends(a, a, more=ALWAYS + budget("cap", "1.0")), tmp_path)
            headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
            (reply,) = await asked(traced, {"headers": headers})

        server, decide = traced.named(OIP), traced.named("decide")
        call, settle = traced.named("POST cheap"), traced.named("settle")
        assert {f"{s.context.trace_id:032x}" for s in traced.spans} == {TRACE}
        assert f"{server.parent.span_id:016x}" == CALLER
        assert server.parent.is_remote
        assert decide.parent.span_id == call.parent.span_id == server.context.span_id
        assert settle.parent.span_id == call.context.span_id
        assert sent(cheap) == f"00-{TRACE}-{call.context.span_id:016x}-01"
        assert cheap.requests[0][2][b"tracestate"] == b"vendor=1"
        assert (server.kind, call.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
        told = server.attributes
        assert told["http.response.status_code"] == 200
        assert told["tollway.decision"] == reply.headers["x-tollway-decision"]
        assert told["tollway.cost_nano"] == settle.attributes["tollway.cost_nano"] == 100_000
        assert settle.attributes["tollway.budgets"] == ["cap"]
        assert decide.attributes["tollway.arm"] == "cheap"
        assert server.start_time <= decide.start_time <= decide.end_time == call.start_time
        assert call.end_time == settle.start_time <= server.end_time

    run(main)


def test_a_failure_its_fallback_and_a_refusal(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(status=500)) as a, serving(Upstream()) as b:
            more = ALWAYS + budget("few", "0.00115")
            traced = Traced(two_backends(a, b, more=more), tmp_path)
            first, second = await asked(traced, {}, {"headers": {"traceparent": "nonsense"}})
        assert (first.status_code, second.status_code) == (200, 402)
        failed, other = traced.named("POST cheap"), traced.named("POST dear")
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.attributes["error.type"] == "500"
        assert other.attributes["tollway.fallback"] is True
        assert failed.context.trace_id == other.context.trace_id
        one, two = [span for span in traced.spans if span.name == OIP]
        assert one.context.trace_id != two.context.trace_id
        assert two.attributes["tollway.outcome"] == "over_budget"
        assert two.attributes["http.response.status_code"] == 402
        assert two.parent is None

    run(main)


def test_a_cascade_has_a_decision_for_each_of_its_stages(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            route = "cascade = true"
            toml = two_backends(a, a, policy="lagrangian", route=route, more=ALWAYS)
            traced = Traced(toml, tmp_path)
            replies = await asked(traced, *({} for _ in range(20)))
            stages = {
                reply.headers["x-tollway-decision"]: [
                    row["arm"]
                    for row in traced.gateway.journal.find(reply.headers["x-tollway-decision"])
                    if row["kind"] == "decision"
                ]
                for reply in replies
            }
        found: dict[str, list[Any]] = {}
        servers = {s.context.span_id: s for s in traced.spans if s.name == OIP}
        decided = [span for span in traced.spans if span.name == "decide"]
        for span in sorted(decided, key=lambda span: span.start_time):
            decision = servers[span.parent.span_id].attributes["tollway.decision"]
            found.setdefault(decision, []).append(span.attributes["tollway.arm"])
        assert found == stages
        assert 2 in {len(arms) for arms in found.values()}

    run(main)


def test_language_models_have_a_span_over_all_their_calls(tmp_path: Path) -> None:
    async def main() -> None:
        model = Model(chunk("Hel"), chunk("lo", "stop"), usage(100, 50), END)
        async with serving(model) as url:
            toml = CONFIG.format(one=url, two=url, route="") + ALWAYS
            traced = Traced(toml, tmp_path)
            await asked(traced, {"path": "/v1/chat/completions", "json": ASK})
        asked_of, call = traced.named("chat m"), traced.named("POST one")
        assert call.parent.span_id == asked_of.context.span_id
        assert asked_of.parent.span_id == traced.named("POST /v1/chat/completions").context.span_id
        assert asked_of.attributes == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "one",
            "gen_ai.request.model": "m",
            "gen_ai.request.stream": True,
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 50,
        }
        assert traced.named("settle").attributes["tollway.cost_nano"] == 600_000

    run(main)


def test_what_is_not_sampled_makes_no_span_and_passes_its_context_on(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            never = ALWAYS.replace("1.0", "0.0")
            traced = Traced(two_backends(a, a, more=never), tmp_path)
            await asked(traced, {}, {"headers": {"traceparent": PARENT[:-1] + "0"}})
        assert traced.spans == []
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", sent(upstream, 0))
        assert sent(upstream, 1).startswith(f"00-{TRACE}-")
        assert not sent(upstream, 1).startswith(PARENT[:-3])

    run(main)


def test_without_tracing_a_callers_context_is_forwarded_unchanged(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            plain = Traced(two_backends(a, a), tmp_path)
            await asked(plain, {"headers": {"traceparent": PARENT}}, {})
        assert sent(upstream, 0) == PARENT
        assert b"traceparent" not in upstream.requests[1][2]

    run(main)


def test_latencies_are_linked_to_traces_where_openmetrics_is_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            traced = Traced(two_backends(a, a, more=ALWAYS), tmp_path)
            accept = {"accept": "application/openmetrics-text; version=1.0.0"}
            _, linked, plain = await asked(
                traced,
                {"headers": {"traceparent": PARENT}},
                {"method": "GET", "path": "/metrics", "headers": accept},
                {"method": "GET", "path": "/metrics"},
            )
        assert plain.headers["content-type"].startswith("text/plain")
        assert linked.headers["content-type"].startswith("application/openmetrics-text")
        found = {
            family.name: sample.exemplar.labels
            for family in text_string_to_metric_families(linked.text)
            for sample in family.samples
            if sample.exemplar is not None
        }
        server = f"{traced.named(OIP).context.span_id:016x}"
        assert found == {
            "tollway_upstream_duration_seconds": {"trace_id": TRACE, "span_id": server},
            "tollway_gateway_duration_seconds": {"trace_id": TRACE, "span_id": server},
        }

    run(main)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (PARENT, (int(TRACE, 16), int(CALLER, 16), True)),
        (PARENT[:-2] + "00", (int(TRACE, 16), int(CALLER, 16), False)),
        ("01" + PARENT[2:] + "-more", (int(TRACE, 16), int(CALLER, 16), True)),
        (PARENT + "-more", None),
        ("ff" + PARENT[2:], None),
        (PARENT.upper(), None),
        (f"00-{'0' * 32}-{CALLER}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        ("", None),
    ],
)
def test_trace_contexts_are_read_as_the_standard_has_it(
    header: str, found: tuple[int, int, bool] | None
) -> None:
    fields = [(b"traceparent", header.encode())]
    assert parent(fields) == found
    assert parent([*fields, *fields]) is None
    assert parent([]) is None


class Receiver:
    """Receives spans by OpenTelemetry's protocol."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.got = ExportTraceServiceRequest()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        self.paths.append(scope["path"])
        if dict(scope["headers"]).get(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        self.got.MergeFromString(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_a_receiver_of_otlp_gets_the_spans_before_the_gateway_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        receiver = Receiver()
        async with serving(Upstream()) as a, serving(receiver) as otlp:
            toml = two_backends(a, a, more=ALWAYS.replace("http://127.0.0.1:1", otlp))
            async with running(toml, tmp_path) as tollway:
                for n in range(3):
                    assert (await tollway.infer(float(n))).status_code == 200
        assert set(receiver.paths) == {"/v1/traces"}
        (resource,) = {
            tuple((pair.key, pair.value.string_value) for pair in sent.resource.attributes)
            for sent in receiver.got.resource_spans
        }
        assert ("service.name", "tollway") in resource
        spans = [
            span
            for sent in receiver.got.resource_spans
            for scope in sent.scope_spans
            for span in scope.spans
        ]
        assert len(spans) == 12  # a server's, a decision, a call and a settlement each
        assert len({span.trace_id for span in spans}) == 3

    run(main)
