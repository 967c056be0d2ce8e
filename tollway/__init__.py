"""Tollway: a cost-aware routing gateway.

The names below are the Python API, for notebooks and scripts; docs/python.md has examples. Each is
imported when it is first used, so that `import tollway` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollway.api.client import Client
    from tollway.api.journal import read_journal
    from tollway.api.policy import build_policy
    from tollway.api.replay import Replayed, read_decisions, replay
    from tollway.gateway.cli.client import Declined, Unreachable
    from tollway.policies.types import Arm, Choice, Context, Objective, Policy
    from tollway.simulations.replay.bounded import Bounded
    from tollway.simulations.replay.estimators import Estimate, Refused
    from tollway.simulations.replay.replay import Outcome

    __version__: str

_MODULES = {
    "Client": "tollway.api.client",
    "Declined": "tollway.gateway.cli.client",
    "Unreachable": "tollway.gateway.cli.client",
    "read_journal": "tollway.api.journal",
    "build_policy": "tollway.api.policy",
    "Arm": "tollway.policies.types",
    "Choice": "tollway.policies.types",
    "Context": "tollway.policies.types",
    "Objective": "tollway.policies.types",
    "Policy": "tollway.policies.types",
    "Replayed": "tollway.api.replay",
    "read_decisions": "tollway.api.replay",
    "replay": "tollway.api.replay",
    "Bounded": "tollway.simulations.replay.bounded",
    "Estimate": "tollway.simulations.replay.estimators",
    "Refused": "tollway.simulations.replay.estimators",
    "Outcome": "tollway.simulations.replay.replay",
}

__all__ = [
    "Arm",
    "Bounded",
    "Choice",
    "Client",
    "Context",
    "Declined",
    "Estimate",
    "Objective",
    "Outcome",
    "Policy",
    "Refused",
    "Replayed",
    "Unreachable",
    "__version__",
    "build_policy",
    "read_decisions",
    "read_journal",
    "replay",
]


def __getattr__(name: str) -> Any:
    """Import a name of the API; a missing polars is reported with the extra that installs it."""
    if name == "__version__":
        return import_module("importlib.metadata").version("tollway")
    if name not in _MODULES:
        raise AttributeError(f"module 'tollway' has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as exc:
        if exc.name != "polars":
            raise
        message = f"tollway.{name} needs polars; install Tollway with the extra: tollway[simulate]"
        raise ModuleNotFoundError(message, name="polars") from exc


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
