"""The configuration: `tollway.toml` as typed, frozen tables, each key with its unit and its limits.

A description says what a key does and `examples` what to write there: both are read by the errors
and by docs/configuration.md, which is made from them. Each table has its module; what several must
agree on (names that refer to each other) is in `consistency.py`, the kinds of values in
`fields.py`, what the environment may override in `environment.py`. `load` reads all of it, and
reports everything that is wrong at once.
"""

from gateway.problems import ConfigError
from gateway.settings.backend import Backend, BackendTls
from gateway.settings.budget import BudgetLimit, BudgetScope
from gateway.settings.clause import Clause
from gateway.settings.credential import BackendAuth
from gateway.settings.document import Settings
from gateway.settings.listener import ListenerTls, Server
from gateway.settings.reading import load, parse
from gateway.settings.route import Audit, Features, Route, Score
from gateway.settings.stores import Journal, Ledger, State
from gateway.settings.table import Table
from gateway.settings.tenant import Tenant, TenantKey, TenantRate
from gateway.settings.watching import Anomalies, Log, Tracing, Webhook

__all__ = [
    "Anomalies",
    "Audit",
    "Backend",
    "BackendAuth",
    "BackendTls",
    "BudgetLimit",
    "BudgetScope",
    "Clause",
    "ConfigError",
    "Features",
    "Journal",
    "Ledger",
    "ListenerTls",
    "Log",
    "Route",
    "Score",
    "Server",
    "Settings",
    "State",
    "Table",
    "Tenant",
    "TenantKey",
    "TenantRate",
    "Tracing",
    "Webhook",
    "load",
    "parse",
]
