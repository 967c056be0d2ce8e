"""The packages and the folders of the gateway, and what each may import."""

MAY_IMPORT = {
    "policies": {"policies"},
    "backends": {"backends"},
    "gateway": {"gateway", "policies", "backends"},
    "simulations": {"simulations", "gateway", "policies", "backends"},
    "reports": {"reports", "simulations", "gateway", "policies", "backends"},
    "gameday": {"gameday", "gateway", "backends"},
}


# The folders of the gateway, low to high: each imports only what stands before it.
ORDER = (
    "security",
    "budgets",
    "control_store",
    "storage",
    "listener",
    "caching",
    "estimation",
    "features",
    "settings",
    "routing",
    "learning",
    "signals",
    "rollouts",
    "scaling",
    "observability",
    "anomalies",
    "workers",
    "registry",
    "data_plane",
    "control_plane",
    "grpc_listener",
    "wiring",
    "doctor",
    "cli",
)
