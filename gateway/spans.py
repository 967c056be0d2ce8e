"""Spans: a passage that is over, as OpenTelemetry has it.

    SERVER    POST /v2/models/m/infer      the request, from its arrival to the end of its reply
      INTERNAL  decide                     a draw of the policy, with all until its call begins
      CLIENT    chat MODEL                 where the route speaks OpenAI's protocol: all its calls
        CLIENT    POST BACKEND             an attempt; its id is what the backend was sent
          INTERNAL  settle                 what it was charged, to which budgets

Spans are made when all is known, from what the request's turn says, and handed to the SDK's
processor: the path itself makes none. The SDK sends them from a thread of its own, and drops them
where its queue is full. Attributes are those of the semantic conventions for HTTP and generative
AI; what is Tollway's own begins with `tollway.`. No body, header field, query or key is among them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from threading import Timer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from backends.types import Usage
from gateway.addresses import server_of
from gateway.explain import usd
from gateway.metering import LEFT, OVERLOADED
from gateway.passage import Passage
from gateway.turn import Attempt, Draw, Turn

STOP_S = 2.0  # a receiver that is there takes a batch in milliseconds
Attributes = dict[str, str | bool | int | float | Sequence[str] | Sequence[float]]

_OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
"""What the last segments of an OpenAI path ask for, longest first."""


def exporter(endpoint: str) -> SpanProcessor:
    """Return what sends spans to an OTLP receiver's base address, by HTTP, in batches.

    The standard's environment variables (OTEL_EXPORTER_OTLP_HEADERS and others) hold too.
    """
    return _Batches(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"))


class _Batches(BatchSpanProcessor):
    """The SDK's, but it stops in STOP_S when nobody receives, and not after all its tries."""

    def __init__(self, sender: OTLPSpanExporter) -> None:
        super().__init__(sender)
        self._sender = sender

    def shutdown(self) -> None:
        """Send what waits, and stop."""
        enough = Timer(STOP_S, self._sender.shutdown)  # interrupts its wait for the next try
        enough.start()
        try:
            super().shutdown()  # type: ignore[no-untyped-call]
        finally:
            enough.cancel()


class Spans:
    """Makes the spans of sampled passages."""

    def __init__(
        self,
        processor: SpanProcessor,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        new_id: Callable[[], int],
    ) -> None:
        """`new_id` draws the ids of spans that no backend is told of."""
        self._processor = processor
        self._clock = clock
        self._wall = wall
        self.new_id = new_id
        self.paths: Mapping[str, str] = {}
        self.servers: Mapping[str, tuple[str, int]] = {}
        self.scope = InstrumentationScope("tollway", version("tollway"))
        self.resource = resource()

    def know(self, paths: Mapping[str, str], urls: Mapping[str, str]) -> None:
        """Learn each route's path, as the settings have it, and each backend's address."""
        self.paths = paths
        self.servers = {name: server_of(url) for name, url in urls.items()}

    async def close(self) -> None:
        """Send what waits, and stop."""
        await asyncio.to_thread(self._processor.shutdown)

    def __call__(self, passage: Passage, now_s: float) -> None:
        """Make a passage's spans, if it is sampled: four where there was one attempt."""
        if not passage.sampled:
            return
        offset_s = self._wall() - self._clock()
        _Writer(self, passage, now_s, offset_s).write()

    def emit(self, span: ReadableSpan) -> None:
        """Hand a span over."""
        self._processor.on_end(span)


def resource() -> Resource:
    """Say who sends: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before our own names."""
    told = Resource.create({"service.version": version("tollway")})
    if str(told.attributes["service.name"]).startswith("unknown_service"):
        return told.merge(Resource({"service.name": "tollway"}))
    return told


class _Writer:
    """Writes the spans of one passage."""

    def __init__(self, spans: Spans, passage: Passage, now_s: float, offset_s: float) -> None:
        self._spans = spans
        self._passage = passage
        self._now_s = now_s
        self._offset_s = offset_s

    def write(self) -> None:
        passage, turn = self._passage, self._passage.turn
        if turn is not None:
            self._turn(turn)
        path = self._spans.paths.get(passage.route, "")
        failed = passage.status >= 500 or not passage.status  # 0: the client left before a reply
        self._span(
            f"{passage.method} {path}".rstrip(),
            passage.span_id,
            passage.parent_id,
            (passage.received_s, self._now_s),
            _server(passage, path, turn),
            kind=SpanKind.SERVER,
            error=(f"status {passage.status}" if passage.status else "cancelled") if failed else "",
        )

    def _turn(self, turn: Turn) -> None:
        above = self._passage.span_id
        if turn.inference.route.protocol.name == "openai" and turn.attempts:
            above = self._asked_of_a_model(turn)
        begun_s = self._passage.received_s
        drawn = list(turn.draws)
        for attempt, span_id in zip(turn.attempts, self._passage.calls, strict=False):
            while drawn and not attempt.fallback and attempt.hedge_s is None:
                draw = drawn.pop(0)
                self._decided(draw, begun_s, attempt.started_s)
                if draw.choice.arm == attempt.backend:
                    break
            self._attempt(attempt, span_id, above)
            begun_s = attempt.started_s + attempt.latency_s
        for draw in drawn:  # the reply in hand was accepted, or no budget paid for the arm
            self._decided(draw, begun_s, begun_s if turn.attempts else self._now_s)

    def _decided(self, draw: Draw, start_s: float, end_s: float) -> None:
        choice = draw.choice
        told: Attributes = {
            "tollway.arm": choice.arm,
            "tollway.propensity": float(choice.propensity),
            "tollway.reason": choice.reason,
            "tollway.arms": list(choice.arms),
            "tollway.pmf": [float(p) for p in choice.pmf],
            "tollway.price_of_money": float(choice.price_of_money),
            "tollway.redrawn": draw.redrawn,
        }
        self._own("decide", self._passage.span_id, (start_s, end_s), told)

    def _asked_of_a_model(self, turn: Turn) -> int:
        """Write the span that covers all calls of a route to language models; return its id."""
        # The reply in hand may be nobody's: a route's last resort, or none.
        made = any(attempt is turn.held for attempt in turn.attempts)
        inference, held = turn.inference, turn.held if made and turn.held else turn.attempts[-1]
        payload = inference.call.payload
        asked = payload.data if payload and isinstance(payload.data, dict) else {}
        model = str(asked.get("model", ""))[:256]
        ends = self._passage.path.endswith
        operation = next((what for path, what in _OPERATIONS.items() if ends(path)), "chat")
        told: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": held.backend,
            **_tokens(held.verdict.usage),
        }
        if model:
            told["gen_ai.request.model"] = model
        if asked.get("stream"):
            told["gen_ai.request.stream"] = True
        start_s = turn.attempts[0].started_s
        end_s = max(one.started_s + one.latency_s for one in turn.attempts)
        span_id = self._spans.new_id()
        self._span(
            f"{operation} {model}".rstrip(),
            span_id,
            self._passage.span_id,
            (start_s, end_s),
            told,
            kind=SpanKind.CLIENT,
            error=held.error,
        )
        return span_id

    def _attempt(self, attempt: Attempt, span_id: int, above: int) -> None:
        end_s = attempt.started_s + attempt.latency_s
        host, port = self._spans.servers.get(attempt.backend, ("", 0))
        told: Attributes = {
            "http.request.method": self._passage.method,
            "tollway.backend": attempt.backend,
            "tollway.expected_usd": usd(attempt.quote.expected_nano),
            "tollway.ceiling_usd": usd(attempt.quote.ceiling_nano),
            "tollway.fallback": attempt.fallback,
            "tollway.hedge": attempt.hedge_s is not None,
        }
        if host:
            told |= {"server.address": host, "server.port": port}
        if attempt.status:
            told["http.response.status_code"] = attempt.status
        self._span(
            f"{self._passage.method} {attempt.backend}",
            span_id,
            above,
            (attempt.started_s, end_s),
            told,
            kind=SpanKind.CLIENT,
            error=attempt.error,
        )
        settled: Attributes = {
            "tollway.cost_nano": attempt.verdict.cost_nano,
            "tollway.cost_usd": usd(attempt.verdict.cost_nano),
            "tollway.provenance": attempt.verdict.provenance,
            "tollway.budgets": sorted(attempt.reserved_nano),
        }
        self._own("settle", span_id, (end_s, end_s), settled)

    def _own(self, name: str, above: int, at: tuple[float, float], told: Attributes) -> None:
        self._span(name, self._spans.new_id(), above, at, told, kind=SpanKind.INTERNAL)

    def _span(
        self,
        name: str,
        span_id: int,
        above: int,
        at: tuple[float, float],
        told: Attributes,
        *,
        kind: SpanKind,
        error: str = "",
    ) -> None:
        what = error_type(error) if error else ""
        if what:
            told["error.type"] = what
        start_ns, end_ns = (round((moment + self._offset_s) * 1e9) for moment in at)
        self._spans.emit(
            ReadableSpan(
                name=name,
                context=self._context(span_id),
                parent=self._context(above, is_remote=span_id == self._passage.span_id),
                resource=self._spans.resource,
                attributes=told,
                kind=kind,
                status=Status(StatusCode.ERROR, what) if what else Status(),
                start_time=start_ns,
                end_time=max(start_ns, end_ns),
                instrumentation_scope=self._spans.scope,
            )
        )

    def _context(self, span_id: int, *, is_remote: bool = False) -> SpanContext | None:
        if not span_id:
            return None
        sampled = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(self._passage.trace_id, span_id, is_remote, sampled)


def _server(passage: Passage, path: str, turn: Turn | None) -> Attributes:
    told: Attributes = {
        "http.request.method": passage.method,
        "url.path": passage.path,
        "url.scheme": "http",
    }
    if path:
        told |= {"http.route": path, "tollway.route": passage.route}
    if passage.status:
        told["http.response.status_code"] = passage.status
    if passage.reason:
        told["tollway.reason"] = passage.reason
    if turn is not None:
        told |= {
            "tollway.tenant": turn.inference.tenant,
            "tollway.decision": turn.id,
            "tollway.outcome": turn.outcome,
            "tollway.cost_nano": turn.cost_nano,
            "tollway.cost_usd": usd(turn.cost_nano),
        }
        if turn.reason:
            told["tollway.reason"] = turn.reason
        if turn.held is not None:
            told["tollway.backend"] = turn.held.backend
    return told


def error_type(error: str) -> str:
    """Return what kind of failure an error is, of few kinds: its text may quote a reply."""
    if error.startswith("status "):
        return error.removeprefix("status ")
    known = (
        "invalid answer",
        "no answer",
        "an error in the stream",
        OVERLOADED,
        LEFT,
        "cancelled",
    )
    return next((kind for kind in known if error.startswith(kind)), "backend error")


def _tokens(usage: Usage | None) -> Attributes:
    """Return the billable tokens of a call, as far as they are known."""
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return {}
    told: Attributes = {
        "gen_ai.usage.input_tokens": round(usage.input_tokens),
        "gen_ai.usage.output_tokens": round(usage.output_tokens),
    }
    if usage.cached_input_tokens:
        told["gen_ai.usage.cache_read.input_tokens"] = round(usage.cached_input_tokens)
    for unit, count in usage.units:
        told[f"tollway.usage.{unit}"] = round(count)
    return told
