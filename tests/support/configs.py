"""Configurations that the gateway's tests share."""

from collections.abc import Mapping


def two_backends(
    cheap: str,
    dear: str,
    *,
    policy: str = "cheapest",
    route: str = "",
    server: str = "allow_anonymous = true",
    backend: str = "",
    more: str = "",
    ledger: str = "memory://",
) -> str:
    """Return a route `m` over `cheap` ($0.0001) and `dear` ($0.001)."""
    return f"""
[server]
{server}

[ledger]
url = "{ledger}"

[[backends]]
name = "cheap"
kind = "cpu"
protocol = "oip"
url = "{cheap}"
model = "small"
price = {{ per_request_usd = 0.0001 }}
declared_accuracy = 0.8
{backend}

[[backends]]
name = "dear"
kind = "gpu"
protocol = "oip"
url = "{dear}"
model = "large"
price = {{ per_request_usd = 0.001 }}
declared_accuracy = 0.99
{backend}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["cheap", "dear"]
policy = "{policy}"
context = {{ numeric = ["inputs[0].data"] }}
score = {{ exact = "outputs[0].data[0]" }}
{route}

{more}
"""


def budget(
    name: str, limit_usd: str, scope: Mapping[str, str] | None = None, more: str = ""
) -> str:
    """Return a budget."""
    inside = ", ".join(f'{key} = "{value}"' for key, value in (scope or {}).items())
    return f"""
[[budgets]]
name = "{name}"
limit_usd = {limit_usd}
scope = {{ {inside} }}
{more}
"""
