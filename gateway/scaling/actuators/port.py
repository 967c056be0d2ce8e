"""The port of an actuator: it sets the number of replicas of one backend."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Change:
    """A number of replicas to set. `id` stays the same when the same change is tried again.

    `before` is what was set last, None if nothing was. `reason` is from a closed set, `why` is a
    sentence.
    """

    id: str
    backend: str
    before: int | None
    replicas: int
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a change ended. `problem` is "" if it was made; `output` is what the actuator was told.

    `retry`: whether it is worth trying again.
    """

    problem: str = ""
    output: str = ""
    retry: bool = True


def readable(text: str) -> str:
    """Return output without control characters, which could mislead whoever reads the log."""
    return "".join(char for char in text if char.isprintable() or char == "\n").strip()


class Actuator(Protocol):
    """Sets the number of replicas of one backend."""

    async def apply(self, change: Change) -> Outcome:
        """Make a change; it must do no harm twice. Raises nothing but CancelledError."""

    async def aclose(self) -> None:
        """Release what it holds."""
