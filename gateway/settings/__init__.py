"""The configuration: `tollway.toml` as typed, frozen tables, each key with its unit and its limits.

A field's description says what the key does, and its `examples` what to write. Error messages use
both, and docs/configuration.md is generated from them. Each table has its own module. Checks across
tables (names that refer to each other) are in `cross_checks.py`, value types in `types.py`, and
environment overrides in `environment.py`. `load` reads all of it and reports every problem at once.
"""

from tollway.gateway.settings.backend import BackendConfig, BackendTlsConfig
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.budget import BudgetConfig, BudgetScopeConfig
from tollway.gateway.settings.caching.tables import CacheConfig, RouteCacheConfig
from tollway.gateway.settings.credential import BackendAuth
from tollway.gateway.settings.device import DeviceConfig, DeviceTimeConfig
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.settings.features.group import FeatureGroupConfig, FeatureValueConfig
from tollway.gateway.settings.features.tiers import FeatureTiersConfig
from tollway.gateway.settings.loader import load, parse
from tollway.gateway.settings.observability import (
    AnomaliesConfig,
    LogConfig,
    TracingConfig,
    WebhookConfig,
)
from tollway.gateway.settings.registry.model import ModelConfig
from tollway.gateway.settings.registry.registry import RegistryConfig
from tollway.gateway.settings.rollouts.table import (
    CandidateConfig,
    CriterionConfig,
    RolloutConfig,
    StepConfig,
)
from tollway.gateway.settings.root import Settings
from tollway.gateway.settings.route import AuditConfig, FeaturesConfig, RouteConfig, ScoreConfig
from tollway.gateway.settings.scaling.backend import ScalingConfig
from tollway.gateway.settings.scaling.events import EventConfig, RouteEventConfig
from tollway.gateway.settings.server import (
    CorsConfig,
    GrpcConfig,
    ListenerTlsConfig,
    ServerConfig,
)
from tollway.gateway.settings.storage import CaptureConfig, JournalConfig, LedgerConfig, StateConfig
from tollway.gateway.settings.tenant import TenantConfig, TenantKeyConfig, TenantRateConfig
from tollway.gateway.settings.validation import ConstraintConfig

__all__ = [
    "AnomaliesConfig",
    "AuditConfig",
    "BackendAuth",
    "BackendConfig",
    "BackendTlsConfig",
    "BudgetConfig",
    "BudgetScopeConfig",
    "CacheConfig",
    "CandidateConfig",
    "CaptureConfig",
    "ConfigError",
    "ConfigTable",
    "ConstraintConfig",
    "CorsConfig",
    "CriterionConfig",
    "DeviceConfig",
    "DeviceTimeConfig",
    "EventConfig",
    "FeatureGroupConfig",
    "FeatureTiersConfig",
    "FeatureValueConfig",
    "FeaturesConfig",
    "GrpcConfig",
    "JournalConfig",
    "LedgerConfig",
    "ListenerTlsConfig",
    "LogConfig",
    "ModelConfig",
    "RegistryConfig",
    "RolloutConfig",
    "RouteCacheConfig",
    "RouteConfig",
    "RouteEventConfig",
    "ScalingConfig",
    "ScoreConfig",
    "ServerConfig",
    "Settings",
    "StateConfig",
    "StepConfig",
    "TenantConfig",
    "TenantKeyConfig",
    "TenantRateConfig",
    "TracingConfig",
    "WebhookConfig",
    "load",
    "parse",
]
