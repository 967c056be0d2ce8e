"""The names of the columns of a log that is not ours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a CSV or Parquet file says what; `features` may be any number of them."""

    arm: str = "arm"
    propensity: str = "propensity"
    quality: str = "quality"
    cost: str = "cost_usd"
    time: str = "time"
    latency: str = "latency_s"
    features: tuple[str, ...] = ()
