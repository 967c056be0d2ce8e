"""The result of capacity planning for one backend."""

from dataclasses import dataclass

from tollway.simulations.capacity.capacity import Bill, Need, Replica, Target
from tollway.simulations.capacity.forecast import Forecast, HeldOut
from tollway.simulations.capacity.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan for one backend; `refused` says why there is no number of replicas."""

    traffic: Traffic
    replica: Replica
    target: Target
    forecast: Forecast
    held_out: HeldOut | None
    need: Need | None
    bills: tuple[Bill, ...]
    refused: str = ""
