"""Tracing: converts a finished request trace to OpenTelemetry spans.

    SERVER    POST /v2/models/m/infer      the request, from its arrival to the end of its reply
      INTERNAL  decide                     a draw of the policy, until its call begins
      CLIENT    chat MODEL                 on routes with OpenAI's protocol: all of its calls
        CLIENT    POST BACKEND             an attempt; its id is the one sent to the backend
          INTERNAL  settle                 the amount charged, and to which budgets

Spans are created when the request is complete, from its request state, and passed to the SDK's
processor: the request path creates none. The SDK sends them from its own thread, and drops them if
its queue is full. Attributes follow the semantic conventions for HTTP and generative AI; Tollway's
own begin with `tollway.`. They contain no body, header field, query or key.
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

from tollway.backends.money import to_usd
from tollway.backends.protocols.registry import LANGUAGE_MODELS
from tollway.backends.types import Usage
from tollway.gateway.observability.request_trace import RequestTrace
from tollway.gateway.routing.metering import LEFT, OVERLOADED
from tollway.gateway.routing.request_state import Attempt, Decision, RequestState
from tollway.gateway.security.addresses import server_of

STOP_S = 2.0  # a running receiver accepts a batch in milliseconds
Attributes = dict[str, str | bool | int | float | Sequence[str] | Sequence[float]]

_OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
"""Operations by the last segments of an OpenAI path, longest first."""


def exporter(endpoint: str) -> SpanProcessor:
    """Return a batching exporter of spans to an OTLP receiver's base address, over HTTP.

    The standard environment variables (OTEL_EXPORTER_OTLP_HEADERS and others) apply too.
    """
    return _Batches(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"))


class _Batches(BatchSpanProcessor):
    """The SDK's processor, except that it stops after STOP_S if the receiver is unreachable."""

    def __init__(self, sender: OTLPSpanExporter) -> None:
        super().__init__(sender)
        self._sender = sender

    def shutdown(self) -> None:
        """Send the queued spans and stop."""
        enough = Timer(STOP_S, self._sender.shutdown)  # interrupts its wait for the next try
        enough.start()
        try:
            super().shutdown()  # type: ignore[no-untyped-call]
        finally:
            enough.cancel()


class Tracing:
    """Creates the spans of sampled requests."""

    def __init__(
        self,
        processor: SpanProcessor,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        new_id: Callable[[], int],
    ) -> None:
        """`new_id` generates the ids of spans that are not sent to a backend."""
        self._processor = processor
        self._clock = clock
        self._wall = wall
        self.new_id = new_id
        self.paths: Mapping[str, str] = {}
        self.servers: Mapping[str, tuple[str, int]] = {}
        self.scope = InstrumentationScope("tollway", version("tollway"))
        self.resource = resource()

    def know(self, paths: Mapping[str, str], urls: Mapping[str, str]) -> None:
        """Store each route's configured path and each backend's address."""
        self.paths = paths
        self.servers = {name: server_of(url) for name, url in urls.items()}

    async def close(self) -> None:
        """Send the queued spans and stop."""
        await asyncio.to_thread(self._processor.shutdown)

    def __call__(self, trace: RequestTrace, now_s: float) -> None:
        """Create the spans of a request if it is sampled: four for a single attempt."""
        if not trace.sampled:
            return
        offset_s = self._wall() - self._clock()
        _Writer(self, trace, now_s, offset_s).write()

    def emit(self, span: ReadableSpan) -> None:
        """Pass a span to the processor."""
        self._processor.on_end(span)


def resource() -> Resource:
    """Return the resource; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence."""
    detected = Resource.create({"service.version": version("tollway")})
    if str(detected.attributes["service.name"]).startswith("unknown_service"):
        return detected.merge(Resource({"service.name": "tollway"}))
    return detected


class _Writer:
    """Writes the spans of one request."""

    def __init__(self, spans: Tracing, trace: RequestTrace, now_s: float, offset_s: float) -> None:
        self._spans = spans
        self._trace = trace
        self._now_s = now_s
        self._offset_s = offset_s

    def write(self) -> None:
        trace, state = self._trace, self._trace.state
        if state is not None:
            self._state(state)
        path = self._spans.paths.get(trace.route, "")
        failed = trace.status >= 500 or not trace.status  # 0: the client left before a reply
        self._span(
            f"{trace.method} {path}".rstrip(),
            trace.span_id,
            trace.parent_id,
            (trace.received_s, self._now_s),
            _server(trace, path, state),
            kind=SpanKind.SERVER,
            error=(f"status {trace.status}" if trace.status else "cancelled") if failed else "",
        )

    def _state(self, state: RequestState) -> None:
        above = self._trace.span_id
        if state.inference.route.protocol.name in LANGUAGE_MODELS and state.attempts:
            above = self._asked_of_a_model(state)
        begun_s = self._trace.received_s
        drawn = list(state.draws)
        for attempt, span_id in zip(state.attempts, self._trace.calls, strict=False):
            while drawn and not attempt.fallback and attempt.hedge_s is None:
                draw = drawn.pop(0)
                self._decided(draw, begun_s, attempt.started_s)
                if draw.choice.arm == attempt.backend:
                    break
            self._attempt(attempt, span_id, above)
            begun_s = attempt.started_s + attempt.latency_s
        for draw in drawn:  # the reply kept so far was accepted, or no budget could pay for the arm
            self._decided(draw, begun_s, begun_s if state.attempts else self._now_s)

    def _decided(self, draw: Decision, start_s: float, end_s: float) -> None:
        choice = draw.choice
        attributes: Attributes = {
            "tollway.arm": choice.arm,
            "tollway.propensity": float(choice.propensity),
            "tollway.reason": choice.reason,
            "tollway.arms": list(choice.arms),
            "tollway.pmf": [float(p) for p in choice.pmf],
            "tollway.shadow_price": float(choice.shadow_price),
            "tollway.redrawn": draw.redrawn,
        }
        self._own("decide", self._trace.span_id, (start_s, end_s), attributes)

    def _asked_of_a_model(self, state: RequestState) -> int:
        """Write the span that covers all calls to language models; return its id."""
        # The reply may have no backend: a route's static response, or no reply at all.
        made = any(attempt is state.held for attempt in state.attempts)
        inference, held = state.inference, state.held if made and state.held else state.attempts[-1]
        payload = inference.call.payload
        asked = payload.data if payload and isinstance(payload.data, dict) else {}
        model = str(asked.get("model", ""))[:256]
        ends = self._trace.path.endswith
        operation = next((what for path, what in _OPERATIONS.items() if ends(path)), "chat")
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": held.backend,
            **_tokens(held.outcome.usage),
        }
        if model:
            attributes["gen_ai.request.model"] = model
        if asked.get("stream"):
            attributes["gen_ai.request.stream"] = True
        start_s = state.attempts[0].started_s
        end_s = max(one.started_s + one.latency_s for one in state.attempts)
        span_id = self._spans.new_id()
        self._span(
            f"{operation} {model}".rstrip(),
            span_id,
            self._trace.span_id,
            (start_s, end_s),
            attributes,
            kind=SpanKind.CLIENT,
            error=held.error,
        )
        return span_id

    def _attempt(self, attempt: Attempt, span_id: int, above: int) -> None:
        end_s = attempt.started_s + attempt.latency_s
        host, port = self._spans.servers.get(attempt.backend, ("", 0))
        attributes: Attributes = {
            "http.request.method": self._trace.method,
            "tollway.backend": attempt.backend,
            "tollway.expected_usd": to_usd(attempt.quote.expected_nano),
            "tollway.ceiling_usd": to_usd(attempt.quote.ceiling_nano),
            "tollway.fallback": attempt.fallback,
            "tollway.hedge": attempt.hedge_s is not None,
        }
        if host:
            attributes |= {"server.address": host, "server.port": port}
        if attempt.status:
            attributes["http.response.status_code"] = attempt.status
        self._span(
            f"{self._trace.method} {attempt.backend}",
            span_id,
            above,
            (attempt.started_s, end_s),
            attributes,
            kind=SpanKind.CLIENT,
            error=attempt.error,
        )
        settled: Attributes = {
            "tollway.cost_nano": attempt.outcome.cost_nano,
            "tollway.cost_usd": to_usd(attempt.outcome.cost_nano),
            "tollway.provenance": attempt.outcome.provenance,
            "tollway.budgets": sorted(attempt.reserved_nano),
        }
        self._own("settle", span_id, (end_s, end_s), settled)

    def _own(self, name: str, above: int, at: tuple[float, float], attributes: Attributes) -> None:
        self._span(name, self._spans.new_id(), above, at, attributes, kind=SpanKind.INTERNAL)

    def _span(
        self,
        name: str,
        span_id: int,
        above: int,
        at: tuple[float, float],
        attributes: Attributes,
        *,
        kind: SpanKind,
        error: str = "",
    ) -> None:
        what = error_type(error) if error else ""
        if what:
            attributes["error.type"] = what
        start_ns, end_ns = (round((moment + self._offset_s) * 1e9) for moment in at)
        self._spans.emit(
            ReadableSpan(
                name=name,
                context=self._context(span_id),
                parent=self._context(above, is_remote=span_id == self._trace.span_id),
                resource=self._spans.resource,
                attributes=attributes,
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
        return SpanContext(self._trace.trace_id, span_id, is_remote, sampled)


def _server(trace: RequestTrace, path: str, state: RequestState | None) -> Attributes:
    attributes: Attributes = {
        "http.request.method": trace.method,
        "url.path": trace.path,
        "url.scheme": "http",
    }
    if path:
        attributes |= {"http.route": path, "tollway.route": trace.route}
    if trace.status:
        attributes["http.response.status_code"] = trace.status
    if trace.reason:
        attributes["tollway.reason"] = trace.reason
    if state is not None:
        attributes |= {
            "tollway.tenant": state.inference.tenant,
            "tollway.decision": state.id,
            "tollway.outcome": state.outcome,
            "tollway.cost_nano": state.cost_nano,
            "tollway.cost_usd": to_usd(state.cost_nano),
        }
        if state.reason:
            attributes["tollway.reason"] = state.reason
        if state.held is not None:
            attributes["tollway.backend"] = state.held.backend
    return attributes


def error_type(error: str) -> str:
    """Return the type of an error, from a small set: its text may quote a reply."""
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
    """Return the known billable tokens of a call."""
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return {}
    attributes: Attributes = {
        "gen_ai.usage.input_tokens": round(usage.input_tokens),
        "gen_ai.usage.output_tokens": round(usage.output_tokens),
    }
    if usage.cached_input_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = round(usage.cached_input_tokens)
    for unit, count in usage.units:
        attributes[f"tollway.usage.{unit}"] = round(count)
    return attributes
