"""The column names of a log that Tollway did not write."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read from a CSV or Parquet file; `features` may name any number of them."""

    arm: str = "arm"
    propensity: str = "propensity"
    quality: str = "quality"
    cost: str = "cost_usd"
    time: str = "time"
    latency: str = "latency_s"
    features: tuple[str, ...] = ()
