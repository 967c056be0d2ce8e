"""The whole configuration: all tables of a `tollway.toml`."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    SecretStr,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tollway.gateway.settings.backend import BackendConfig
from tollway.gateway.settings.budget import BudgetConfig, FixedCostConfig
from tollway.gateway.settings.caching.tables import CacheConfig
from tollway.gateway.settings.device import DeviceConfig
from tollway.gateway.settings.features.group import FeatureGroupConfig
from tollway.gateway.settings.features.tiers import FeatureTiersConfig
from tollway.gateway.settings.observability import (
    AnomaliesConfig,
    LogConfig,
    TracingConfig,
    WebhookConfig,
)
from tollway.gateway.settings.registry.model import ModelConfig
from tollway.gateway.settings.registry.registry import RegistryConfig
from tollway.gateway.settings.rollouts.table import RolloutConfig
from tollway.gateway.settings.route import RouteConfig
from tollway.gateway.settings.scaling.backend import ScalingConfig
from tollway.gateway.settings.scaling.events import RouteEventConfig
from tollway.gateway.settings.server import GrpcConfig, ServerConfig
from tollway.gateway.settings.storage import CaptureConfig, JournalConfig, LedgerConfig, StateConfig
from tollway.gateway.settings.tenant import TenantConfig
from tollway.gateway.settings.types import Name


class Settings(BaseSettings):
    """A whole configuration. Read one with `load`, which also runs the cross-table checks."""

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
        """Use only the document: `environment` has already applied the overrides to it."""
        return (init_settings,)

    server: ServerConfig = ServerConfig()
    grpc: GrpcConfig | None = None
    ledger: LedgerConfig = LedgerConfig()
    journal: JournalConfig = JournalConfig()
    state: StateConfig = StateConfig()
    capture: CaptureConfig = Field(default_factory=CaptureConfig)
    cache: CacheConfig = CacheConfig()
    devices: tuple[DeviceConfig, ...] = ()
    backends: tuple[BackendConfig, ...] = Field(min_length=1)
    routes: tuple[RouteConfig, ...] = Field(min_length=1)
    features: tuple[FeatureGroupConfig, ...] = ()
    feature_tiers: FeatureTiersConfig = FeatureTiersConfig()
    tenants: tuple[TenantConfig, ...] = ()
    budgets: tuple[BudgetConfig, ...] = ()
    fixed_costs: tuple[FixedCostConfig, ...] = Field(default=(), max_length=1000)
    scaling: tuple[ScalingConfig, ...] = ()
    events: tuple[RouteEventConfig, ...] = ()
    registry: RegistryConfig | None = None
    models: tuple[ModelConfig, ...] = ()
    rollouts: tuple[RolloutConfig, ...] = ()
    anomalies: AnomaliesConfig = AnomaliesConfig()
    webhooks: tuple[WebhookConfig, ...] = ()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
    extends: str | None = Field(
        default=None,
        description="Name of a file in the same folder that this one extends. It then gives only "
        "what differs. See [environments](environments.md).",
        examples=["tollway.toml"],
    )
    environment: Name | None = Field(
        default=None,
        description="Name of the environment. It is the tag `environment` of every request, "
        "whatever the client sends, and the label `environment` of every metric.",
        examples=["staging"],
    )
    pepper: SecretStr | None = Field(
        default=None,
        description="Secret that `hmac-sha256:` key hashes are made with. Set it as "
        "`TOLLWAY_PEPPER`, not in the file.",
    )

    def effective(self) -> dict[str, Any]:
        """Return the whole configuration as JSON types, including defaults, with secrets hidden."""
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
            # A number if a double represents it exactly, else its digits: nothing is rounded.
            number = float(value)
            return number if Decimal(repr(number)) == value else str(value)
    return value
