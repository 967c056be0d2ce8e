"""Configurations that the gateway's tests share."""

from collections.abc import Mapping

PRICE = "{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }"
"""What a language model costs, unless a test says otherwise."""


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


def one_model(
    url: str,
    *,
    price: str = PRICE,
    protocol: str = "openai",
    path: str = "/v1/chat/completions",
    server: str = "",
    ledger: str = "memory://",
    backend: str = "",
    route: str = "",
    more: str = "",
) -> str:
    """Return a route `m` over one language model, `llm`."""
    return f"""
[server]
allow_anonymous = true
{server}

[ledger]
url = "{ledger}"

[[backends]]
name = "llm"
kind = "gpu"
protocol = "{protocol}"
url = "{url}"
price = {price}
{backend}

[[routes]]
name = "m"
path = "{path}"
protocol = "{protocol}"
backends = ["llm"]
policy = "cheapest"
{route}

{more}
"""


def capped_model(
    url: str, limit_usd: float, backend: str = "", *, enforcement: str = "hard", **options: str
) -> str:
    """Return `one_model` under all of `/v1/`, with a budget `b`."""
    limit = budget("b", str(limit_usd), more=f'enforcement = "{enforcement}"')
    return one_model(url, path="/v1/*", backend=backend, more=limit, **options)
