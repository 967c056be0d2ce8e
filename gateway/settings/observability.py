"""The observability tables: anomalies, webhooks, logs and traces."""

from typing import ClassVar, Literal

from pydantic import Field

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.types import BackendUrl, Float, Name, Share, WebhookSecret, WebUrl


class AnomaliesConfig(ConfigTable):
    """Detection of unusual spend. It works without any configuration."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    enabled: bool = Field(default=True, description="Whether spend is monitored.")
    ratio: Float = Field(
        default=1.3,
        gt=1,
        le=1000,
        description="Spend, as a multiple of the baseline for this hour of the week, that counts "
        "as an anomaly. A higher multiple applies to spend that varies by itself, and while the "
        "baseline is based on little data.",
    )
    strictness: Float = Field(
        default=1.0,
        ge=0.1,
        le=10,
        description="Multiplies what spend must exceed of its own usual variation. Above 1 there "
        "are fewer alerts, and fewer anomalies are found; below 1 more of both.",
    )
    min_usd_per_hour: Float = Field(
        default=1.0,
        ge=0,
        description="Smallest excess over the baseline that raises an alert, in dollars per hour.",
    )


class WebhookConfig(ConfigTable):
    """An address that receives events."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    name: Name = Field(description="Name of the webhook in the log.", examples=["on-call"])
    url: WebUrl = Field(
        description="Address that events are posted to. It is hidden wherever settings are shown, "
        "because Slack's URLs are secret. Prefer the environment variable "
        "`TOLLWAY_WEBHOOKS__<NAME>__URL`.",
        examples=["https://hooks.example.com/tollway"],
    )
    format: Literal["cloudevents", "slack"] = Field(
        default="cloudevents",
        description="`cloudevents`: CloudEvents 1.0 in JSON. `slack`: a Slack message.",
    )
    secret: WebhookSecret | None = Field(
        default=None,
        description="Secret that signs the events (`webhook-signature`, as in Standard Webhooks). "
        "After `whsec_` it is read as base64; any other secret is used as it is.",
    )
    events: tuple[str, ...] = Field(
        default=(),
        description="Kinds of events to send. Default: all.",
        examples=[["spend_anomaly", "threshold"]],
    )


class LogConfig(ConfigTable):
    """The log, on stderr. Lines that the reader does not read in time are dropped and counted."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    format: Literal["text", "json"] = Field(
        default="text", description="`text` for people, or `json` for one JSON object per line."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning",
        description="Minimum level that is written. Request lines have their own setting.",
    )
    requests: Literal["off", "failed", "all"] = Field(
        default="off",
        description="Request lines, with decision, backend, cost and duration: `all` requests, "
        "`failed` requests (4xx or 5xx), or `off`.",
    )


class TracingConfig(ConfigTable):
    """OpenTelemetry traces. They require the extra `otel`."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    endpoint: BackendUrl | None = Field(
        default=None,
        description="Base address of an OTLP receiver (HTTP). If omitted, tracing is off. The "
        "standard environment variables apply too, such as `OTEL_EXPORTER_OTLP_HEADERS`.",
        examples=["http://127.0.0.1:4318"],
    )
    sample: Share = Field(
        default=0.01,
        description="Share of requests to trace, among those without a trace context. Requests "
        "with a trace context are traced if their caller is.",
    )
