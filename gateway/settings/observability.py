"""The tables of those who watch: anomalies, webhooks, the log, traces."""

from typing import Literal

from pydantic import (
    Field,
    SecretStr,
)

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.types import BackendUrl, Float, Name, Share, WebUrl


class AnomaliesConfig(ConfigTable):
    """What spend counts as not as usual; noticed without any setting."""

    enabled: bool = Field(default=True, description="Whether spend is watched.")
    ratio: Float = Field(
        default=1.5,
        gt=1,
        le=1000,
        description="How many times the usual for this hour of the week; more while less is known.",
    )
    min_usd_per_hour: Float = Field(
        default=1.0, ge=0, description="The least excess over the usual that is told of."
    )


class WebhookConfig(ConfigTable):
    """An address that events are sent to."""

    name: Name = Field(description="Its name in the log.", examples=["on-call"])
    url: WebUrl = Field(
        description="Where they are posted; hidden wherever settings are shown, since Slack's are "
        "secret. Better set as `TOLLWAY_WEBHOOKS__<NAME>__URL`.",
        examples=["https://hooks.example.com/tollway"],
    )
    format: Literal["cloudevents", "slack"] = Field(
        default="cloudevents", description="CloudEvents 1.0 in JSON, or a message as Slack has it."
    )
    secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Signs them (`webhook-signature`, as Standard Webhooks has it).",
    )
    events: tuple[str, ...] = Field(
        default=(),
        description="The kinds of events that it gets; all of them by default.",
        examples=[["spend_anomaly", "threshold"]],
    )


class LogConfig(ConfigTable):
    """The log, on stderr; lines that its reader does not take in time are dropped and counted."""

    format: Literal["text", "json"] = Field(
        default="text", description="Lines for people, or one JSON object a line."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="The least that is written; requests have their own setting."
    )
    requests: Literal["off", "failed", "all"] = Field(
        default="off",
        description="A line for each request with its decision, backend, cost and duration; or for "
        "those answered with 4xx or 5xx, or not at all.",
    )


class TracingConfig(ConfigTable):
    """OpenTelemetry traces; needs the extra `otel`."""

    endpoint: BackendUrl | None = Field(
        default=None,
        description="The base address of an OTLP receiver (HTTP); without one nothing is traced. "
        "The standard's variables hold too, such as `OTEL_EXPORTER_OTLP_HEADERS`.",
        examples=["http://127.0.0.1:4318"],
    )
    sample: Share = Field(
        default=0.01,
        description="The share of requests to trace, of those that bring no trace context; the "
        "others are traced where their caller is.",
    )
