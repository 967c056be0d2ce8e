"""The configuration: `tollway.toml` as typed, frozen tables, each key with its unit and its limits.

A description says what a key does and `examples` what to write there: both are read by the errors
and by docs/configuration.md, which is made from them. Each table has its module; what several must
agree on (names that refer to each other) is in `consistency.py`, the kinds of values in
`fields.py`, what the environment may override in `environment.py`. `load` reads all of it, and
reports everything that is wrong at once.
"""

from tollway.gateway.settings.backend import BackendConfig, BackendTlsConfig
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.budget import BudgetConfig, BudgetScopeConfig
from tollway.gateway.settings.credential import BackendAuth
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.settings.loader import load, parse
from tollway.gateway.settings.observability import (
    AnomaliesConfig,
    LogConfig,
    TracingConfig,
    WebhookConfig,
)
from tollway.gateway.settings.root import Settings
from tollway.gateway.settings.route import AuditConfig, FeaturesConfig, RouteConfig, ScoreConfig
from tollway.gateway.settings.server import ListenerTlsConfig, ServerConfig
from tollway.gateway.settings.storage import JournalConfig, LedgerConfig, StateConfig
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
    "ConfigError",
    "ConfigTable",
    "ConstraintConfig",
    "FeaturesConfig",
    "JournalConfig",
    "LedgerConfig",
    "ListenerTlsConfig",
    "LogConfig",
    "RouteConfig",
    "ScoreConfig",
    "ServerConfig",
    "Settings",
    "StateConfig",
    "TenantConfig",
    "TenantKeyConfig",
    "TenantRateConfig",
    "TracingConfig",
    "WebhookConfig",
    "load",
    "parse",
]
