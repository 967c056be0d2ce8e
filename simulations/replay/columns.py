"""The column names of a log that Tollway did not write."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read from a CSV or Parquet file; `features` may name any number of them.

    `probabilities`: the beginning of the names of columns that have the probability of each arm,
    which the rest of the name names; empty if there are none.
    """

    arm: str = "arm"
    propensity: str = "propensity"
    quality: str = "quality"
    cost: str = "cost_usd"
    time: str = "time"
    latency: str = "latency_s"
    features: tuple[str, ...] = ()
    probabilities: str = ""
