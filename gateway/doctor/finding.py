"""What an examination finds."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined: whether it is well, what was seen, and what to do if not."""

    subject: str  # such as `ledger` or `backend gpu`
    state: State
    seen: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


def ok(subject: str, seen: str) -> Finding:
    """Return that something is well."""
    return Finding(subject, "ok", seen)


def warning(subject: str, seen: str, remedy: str) -> Finding:
    """Return that something will or may go wrong."""
    return Finding(subject, "warning", seen, remedy)


def failure(subject: str, seen: str, remedy: str) -> Finding:
    """Return that something is wrong: the gateway, or a part of it, cannot work."""
    return Finding(subject, "failure", seen, remedy)
