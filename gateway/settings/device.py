"""The tables of a device that backends run on, and of where its time is measured."""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from tollway.backends.devices.clocks import SOURCES, UNITS
from tollway.backends.devices.device import Terms
from tollway.backends.devices.exposition import Selector, parse_selector
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import (
    Float,
    Int,
    JsonPath,
    LocalPath,
    Name,
    Seconds,
    Share,
    Usd,
    WebUrl,
    checked,
)

SelectorText = Annotated[str, checked(parse_selector), Field(max_length=1024)]


class DeviceConfig(ConfigTable):
    """A device that is paid for by the hour; the backends that run on it share its cost."""

    name: Name = Field(
        description="Name of the device, which backends give as their `device`.", examples=["gpu-1"]
    )
    usd_per_hour: Usd | None = Field(
        default=None,
        gt=0,
        description="Price of an hour. Exactly one of `usd_per_hour`, `price_url` and `price_file` "
        "is required.",
        examples=[2.50],
    )
    price_url: WebUrl | None = Field(
        default=None,
        description="Address that the price of an hour, in dollars, is read from every `poll_s`: a "
        "number, or what `price_json` or `price_metric` says. It is hidden wherever settings are "
        "shown, because it may contain a key.",
        examples=["http://opencost.opencost:9003/metrics"],
    )
    price_file: LocalPath | None = Field(
        default=None, description="File that the price is read from in the same way."
    )
    price_json: JsonPath | None = Field(
        default=None,
        description="Path of the price, if the document is JSON.",
        examples=["offers[0].usd_per_hour"],
    )
    price_metric: SelectorText | None = Field(
        default=None,
        description="Metric with the price, if the document is in Prometheus' text format; the "
        "samples that have these labels are added up.",
        examples=['node_gpu_hourly_cost{instance="gpu-1"}'],
    )
    poll_s: Seconds = Field(default=60, description="Time between two reads of the price.")
    stale_after_s: Float = Field(
        default=3600,
        ge=0,
        description="How long a price that can no longer be read counts as known.",
    )
    on_stale: Literal["estimate", "exclude"] = Field(
        default="estimate",
        description="What happens once the price is not known. `estimate`: calls are charged at "
        "the last price and marked `estimated`, and hard budgets refuse them. `exclude`: the "
        "device's backends get no calls.",
    )
    concurrency: Int = Field(
        default=1,
        ge=1,
        le=65_536,
        description="Calls that the device serves at once when it is fully used: how many seconds "
        "of calls are in a second of it.",
    )
    idle: Literal["by-use", "even", "none"] = Field(
        default="by-use",
        description="Which backends pay for idle time: `by-use`, in proportion to their busy time; "
        "`even`, the same for each; or `none` of them.",
    )
    utilization: Share = Field(
        default=0.5,
        gt=0,
        description="Assumed share of the device's time that is used, until it has been learned.",
    )
    min_utilization: Share = Field(
        default=0.05,
        gt=0,
        description="Least utilisation that the price of a second is computed with. Below it, idle "
        "time is charged to nobody, so that one call after a quiet night does not pay for it.",
    )
    half_life_s: Seconds = Field(
        default=600,
        description="Time after which an observed load counts half in the learned utilisation.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [k for k in ("usd_per_hour", "price_url", "price_file") if getattr(self, k)]
        if len(given) != 1:
            key = given[1] if given else "usd_per_hour"
            why = f"is set beside {given[0]}; remove one" if given else "is missing"
            fix = "" if given else "; write it like usd_per_hour = 2.50, or set price_url"
            raise KeyProblem(key, why + fix)
        reads = [key for key in ("price_json", "price_metric") if getattr(self, key) is not None]
        if reads and given == ["usd_per_hour"]:
            raise KeyProblem(reads[0], "applies only to price_url and price_file; remove it")
        if len(reads) == 2:
            raise KeyProblem(reads[1], "is set beside price_json; remove one of them")
        return self

    @property
    def terms(self) -> Terms:
        """How the device's cost is shared."""
        return Terms(
            idle=self.idle,
            slots=float(self.concurrency),
            utilization=self.utilization,
            least=self.min_utilization,
            half_life_s=self.half_life_s,
            stale_after_s=self.stale_after_s,
        )

    @property
    def price_selector(self) -> Selector | None:
        """The parsed `price_metric`."""
        return None if self.price_metric is None else parse_selector(self.price_metric)


_POLLED = (*SOURCES, "oip", "metric")


class DeviceTimeConfig(ConfigTable):
    """Where the device seconds of a backend's calls come from, in place of their duration."""

    source: Literal["header", "server-timing", "triton", "oip", "vllm", "kserve", "metric"] = Field(
        description="`header`: a field of each reply, named by `header`. `server-timing`: the "
        "metric of that field named by `metric`. Or the server's counters, which are polled: "
        "`triton`, `vllm` and `kserve` know the metrics of these servers, `oip` reads the "
        "statistics of a model by the Open Inference Protocol, and `metric` the counter that "
        "`metric` selects.",
        examples=["triton"],
    )
    header: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")] | None = Field(
        default=None,
        description="Name of the reply's field, for `header`.",
        examples=["x-compute-ms"],
    )
    metric: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None,
        description="For `server-timing`, the name of its metric; for `metric`, the counter, with "
        "labels if needed.",
        examples=['compute_seconds_total{model="digits"}'],
    )
    unit: Literal["s", "ms", "us", "ns"] = Field(
        default="s", description="Unit of the field, for `header`, or of the counter, for `metric`."
    )
    url: WebUrl | None = Field(
        default=None,
        description="Address of the counters. Default for `oip`: the model's statistics below the "
        "backend's `url`.",
        examples=["http://127.0.0.1:8002/metrics"],
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The model's name in the server's counters. Default: the backend's `model`; "
        "without either, the counters of all models are added up.",
    )
    poll_s: Seconds = Field(default=10, description="Time between two reads of the counters.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        needs = {"header": "header", "server-timing": "metric", "metric": "metric"}
        for key in ("header", "metric"):
            wanted = needs.get(self.source) == key
            if wanted and getattr(self, key) is None:
                raise KeyProblem(key, f'is missing, which source = "{self.source}" requires')
            if not wanted and getattr(self, key) is not None:
                raise KeyProblem(key, f'does not apply to source = "{self.source}"; remove it')
        if self.unit != "s" and self.source not in ("header", "metric"):
            raise KeyProblem("unit", f'does not apply to source = "{self.source}"; remove it')
        if self.source == "metric":
            try:
                parse_selector(self.metric or "")
            except ValueError as exc:
                raise KeyProblem("metric", str(exc)) from None
        for key in ("url", "model"):
            if not self.is_polled and getattr(self, key) is not None:
                raise KeyProblem(key, f'does not apply to source = "{self.source}"; remove it')
        if self.is_polled and self.url is None and self.source != "oip":
            raise KeyProblem("url", "is missing; write it like http://127.0.0.1:8002/metrics")
        return self

    @property
    def is_polled(self) -> bool:
        """Whether the seconds come from counters of the server, not from each reply."""
        return self.source in _POLLED

    @property
    def unit_s(self) -> float:
        """Seconds in a unit."""
        return UNITS[self.unit]

    def selector(self, model: str | None) -> Selector:
        """Return the counter to read; `model` is the backend's own name of its model."""
        if self.source == "metric":
            return parse_selector(self.metric or "")
        source, named = SOURCES[self.source], self.model or model
        return Selector(source.metric, ((source.label, named),) if named else ())

    @property
    def counter_unit(self) -> str:
        """The unit of the counter."""
        return self.unit if self.source == "metric" else SOURCES[self.source].unit


def secret(url: SecretStr | None) -> str:
    """Return an address as text; empty if there is none."""
    return "" if url is None else url.get_secret_value()
