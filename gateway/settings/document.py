"""A whole configuration: all tables of a `tollway.toml`."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    SecretStr,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.settings.backend import Backend
from gateway.settings.budget import BudgetLimit
from gateway.settings.listener import Server
from gateway.settings.route import Route
from gateway.settings.stores import Journal, Ledger, State
from gateway.settings.tenant import Tenant
from gateway.settings.watching import Anomalies, Log, Tracing, Webhook


class Settings(BaseSettings):
    """A whole configuration. Read one with `load`, which also checks what its tables agree on."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the document alone: `environment` has written the overrides into it."""
        return (init_settings,)

    server: Server = Server()
    ledger: Ledger = Ledger()
    journal: Journal = Journal()
    state: State = State()
    backends: tuple[Backend, ...] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)
    tenants: tuple[Tenant, ...] = ()
    budgets: tuple[BudgetLimit, ...] = ()
    anomalies: Anomalies = Anomalies()
    webhooks: tuple[Webhook, ...] = ()
    log: Log = Log()
    tracing: Tracing = Tracing()
    pepper: SecretStr | None = Field(
        default=None,
        description="The secret that `hmac-sha256:` key hashes are made with. "
        "Set it as `TOLLWAY_PEPPER`, not in the file.",
    )

    def effective(self) -> dict[str, Any]:
        """Return all of it, defaults included and secrets hidden, as JSON types."""
        document: dict[str, Any] = _shown(self.model_dump(exclude_none=True))
        return document


def _shown(value: Any) -> Any:
    match value:
        case dict():
            return {key: _shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner) for inner in value]
        case SecretStr():
            return "(hidden)"
        case Path() | datetime():
            return str(value)
        case Decimal():
            # A number where a double holds it exactly, else its digits: nothing is rounded.
            number = float(value)
            return number if Decimal(repr(number)) == value else str(value)
    return value
