"""The registry port: the versions of a model, their aliases, and what is written back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases: the version that serves, and the one that is tried."""
VERSIONS_MAX = 1000  # of a model: more are not looked at
STAGES = ("None", "Staging", "Production", "Archived")
"""MLflow's former stages; a version's stage follows from its alias and its tag `tollway.stage`."""


class RegistryUnavailable(Exception):  # noqa: N818 - reads as what happened
    """The registry did not answer, or not in a way that can be read."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version: its metrics as they were logged, its tags, and whether it can be used yet."""

    version: str
    created_s: float = 0.0
    ready: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    run: str = ""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model: its aliases, and its versions, oldest first."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[ModelVersion, ...] = ()

    def get(self, version: str | None) -> ModelVersion | None:
        """Return a version; None if there is none."""
        return next((one for one in self.versions if one.version == version), None)

    def stage(self, version: str) -> str:
        """Return the stage of a version."""
        if self.aliases.get(CHAMPION) == version:
            return "Production"
        if self.aliases.get(CHALLENGER) == version:
            return "Staging"
        found = self.get(version)
        tagged = "" if found is None else found.tags.get("tollway.stage", "")
        return "Archived" if tagged == "Archived" else "None"


class Registry(Protocol):
    """A registry of models. All methods raise RegistryUnavailable."""

    async def model(self, name: str) -> RegisteredModel:
        """Return a model; an unknown one has no versions."""

    async def metrics(self, name: str, version: ModelVersion) -> Mapping[str, float]:
        """Return what was measured of a version before it was registered."""

    async def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Give an alias to a version, or, with None, to none."""

    async def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Write tags of a version; others stay."""

    async def aclose(self) -> None:
        """Close its connections."""
