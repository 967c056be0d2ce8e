"""The value types of configuration keys, each with its limits and its error message.

A check that rejects a value raises ValueError with a message that says what to write instead.
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from tollway.backends.http.proxies import DIRECT, parse_proxy
from tollway.backends.json_path import compile_path
from tollway.backends.pricing import parse_price
from tollway.backends.protocols.http.free import parse as parse_free_path
from tollway.backends.protocols.registry import PROTOCOLS
from tollway.gateway.features.embedding import WORDLLAMA
from tollway.gateway.security import addresses, keys, secrets, webhook_signature
from tollway.gateway.security.header_names import CREDENTIALS, FRAMING, HOP_BY_HOP
from tollway.gateway.settings import cross_checks
from tollway.gateway.settings.errors import did_you_mean
from tollway.policies.registry import POLICIES

FOLDER: ContextVar[Path] = ContextVar("FOLDER", default=Path())
"""The base of relative paths while a configuration is read: the folder of its file. (A validation
context would be simpler, but pydantic-settings' models do not pass one on.)"""

# Names are used as Prometheus label values, and in headers, paths and variable names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")  # a token of RFC 9110, in lower case


_PASSWORD = re.compile(r"[?&][^=&]*passw", re.IGNORECASE)  # an option of redis-py


def checked(check: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that returns the value unchanged unless `check` raises."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


def _not_a_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _plain(value: Any) -> Any:
    """Return a free-form table with floats for Decimals, for code that expects TOML's types."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        rule = "1 to 63 letters, digits, '_', '.' or '-', the first a letter or digit"
        raise ValueError(f"must be {rule}; write it like digits-gpu")


def _check_forwarded(name: str) -> None:
    _check_header_name(name)
    if name.encode() in HOP_BY_HOP | FRAMING:
        raise ValueError("is a connection field, which is never forwarded; remove it")
    if name.startswith("x-tollway-"):
        raise ValueError("is reserved for the gateway and is never forwarded; remove it")


def _check_added(name: str) -> None:
    _check_forwarded(name)
    if name in {"via", "traceparent", "content-type", "content-encoding"}:
        raise ValueError("is set by the gateway or the client; remove it")


def _check_static(name: str) -> None:
    _check_added(name)
    if name.encode() in CREDENTIALS:
        raise ValueError(
            "carries a credential, which is not allowed here; write it like "
            'auth = { header = "x-api-key", value_env = "PROVIDER_API_KEY" }'
        )


def _check_field_value(value: SecretStr) -> None:
    text = value.get_secret_value()
    secrets.check_field_value(text)
    if not text or text != text.strip():
        raise ValueError("is empty or has surrounding spaces; write only the value of the field")


def _check_proxy(value: SecretStr) -> None:
    if value.get_secret_value() != DIRECT:
        parse_proxy(value.get_secret_value())


def _check_header_name(name: str) -> None:
    if _HEADER_NAME.fullmatch(name) is None:
        raise ValueError("is not a valid header field name; write it like authorization")


def _check_price(table: dict[str, Any]) -> None:
    try:
        parse_price(table)
    except ValueError as exc:
        raise ValueError(str(exc).removeprefix("price.")) from None


FROM_CATALOG = {"catalog": True}


def _catalog_as_table(value: Any) -> Any:
    return FROM_CATALOG if value == "catalog" else value


def _check_price_or_catalog(table: dict[str, Any]) -> None:
    if table != FROM_CATALOG:
        _check_price(table)


def _check_protocol(name: str) -> None:
    if name not in PROTOCOLS:
        known = ", ".join(sorted(PROTOCOLS))
        near = did_you_mean(name, PROTOCOLS, otherwise="write one of these")
        raise ValueError(f"must be one of {known}; {near}")


def _check_policy(name: str) -> None:
    if name == "cascade":
        raise ValueError('cannot be set directly; write policy = "lagrangian" and cascade = true')
    if name not in POLICIES:
        names = sorted({*POLICIES} - {"cascade"})
        near = did_you_mean(name, names, otherwise="write one of these")
        raise ValueError(f"must be one of {', '.join(names)}; {near}")


def _check_field(name: str) -> None:
    if len(name) > 256 or not all(step.strip() for step in name.split(".")):
        raise ValueError("must be a field name, with dots for nested fields; write it like a.b")


def _check_timezone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # KeyError means "not found"; the others are raised for paths that are not time zones.
        near = did_you_mean(name, available_timezones(), otherwise="write one like Europe/Berlin")
        raise ValueError(f"is not an IANA time zone; {near}") from None


def _beside_the_file(path: Path) -> Path:
    """Resolve a path in the configuration; a relative one is relative to FOLDER."""
    return FOLDER.get() / path.expanduser()


def _model_or_folder(name: str) -> str:
    return name if name == WORDLLAMA else str(_beside_the_file(Path(name)))


def _ledger_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"sqlite", "redis", "rediss", "unix", "memory"}:
        known = "sqlite:///, redis://, rediss:// or unix://, or be memory://"
        raise ValueError(f"must begin with {known}")
    if scheme != "sqlite":
        if "@" in rest or "#" in rest or _PASSWORD.search(unquote(rest)):
            raise ValueError("must not contain a password; set TOLLWAY_LEDGER__PASSWORD instead")
        if "cluster=1" in rest and ("replicas=" in rest or "sentinel=" in rest):
            raise ValueError("has cluster=1 beside replicas or sentinel; write one of them")
        return url
    if not rest.startswith("/") or rest == "/":
        raise ValueError("must name a file; write it like sqlite:///tollway.db")
    return f"sqlite:///{_beside_the_file(Path(rest[1:]))}"


class DefaultBy:
    """A default that depends on another key of the same table, which must be declared before it."""

    def __init__(self, key: str, otherwise: Any, **by: Any) -> None:
        """`by` maps values of `key` to their defaults; `otherwise` is the default for the rest."""
        self.key = key
        self.otherwise = otherwise
        self.by: dict[Any, Any] = by

    def __call__(self, table: dict[str, Any]) -> Any:
        """Return the default, given the values of the keys declared before this one."""
        return self.by.get(table.get(self.key), self.otherwise)


Int = Annotated[int, BeforeValidator(_not_a_boolean)]
Float = Annotated[float, BeforeValidator(_not_a_boolean)]
Share = Annotated[Float, Field(ge=0, le=1)]
Seconds = Annotated[Float, Field(gt=0, le=86_400)]
Megabytes = Annotated[Int, Field(ge=1, le=65_536)]
Usd = Annotated[Decimal, BeforeValidator(_not_a_boolean), Field(ge=0, decimal_places=9)]
Name = Annotated[str, checked(_check_name)]
PROTOCOL_NAMES = ", ".join(f"`{name}`" for name in sorted(PROTOCOLS))
Protocol = Annotated[str, checked(_check_protocol)]
PolicyName = Annotated[str, checked(_check_policy)]
JsonPath = Annotated[str, checked(compile_path)]
FreePath = Annotated[str, checked(parse_free_path)]
FieldPath = Annotated[str, checked(_check_field)]
RoutePath = Annotated[str, checked(cross_checks.check_path)]
HeaderName = Annotated[str, AfterValidator(str.lower), checked(_check_added)]
ProxyUrl = Annotated[SecretStr, checked(_check_proxy)]
StaticHeaders = dict[
    Annotated[str, AfterValidator(str.lower), checked(_check_static)],
    Annotated[SecretStr, checked(_check_field_value)],
]
ForwardedHeader = Annotated[str, AfterValidator(str.lower), checked(_check_forwarded)]
Listener = Annotated[str, checked(addresses.check_listen)]
BackendUrl = Annotated[str, checked(addresses.check_backend_url)]
WebUrl = Annotated[
    SecretStr, checked(lambda value: addresses.check_web_url(value.get_secret_value()))
]
WebhookSecret = Annotated[
    SecretStr,
    Field(min_length=16),
    checked(lambda value: webhook_signature.key_of(value.get_secret_value())),
]
LedgerUrl = Annotated[str, AfterValidator(_ledger_url)]
TimeZone = Annotated[str, checked(_check_timezone)]
LocalPath = Annotated[Path, AfterValidator(_beside_the_file)]

StaticModel = Annotated[str, Field(min_length=1), AfterValidator(_model_or_folder)]
"""The name of a packaged static model of embeddings, or a folder with one."""
KeyHash = Annotated[SecretStr, checked(lambda value: keys.check_hash(value.get_secret_value()))]
FreeTable = Annotated[dict[str, Any], BeforeValidator(_plain)]
PriceTable = Annotated[FreeTable, checked(_check_price)]
PriceOrCatalog = Annotated[
    FreeTable, checked(_check_price_or_catalog), BeforeValidator(_catalog_as_table)
]
"""A price table, or `"catalog"`, which is parsed as FROM_CATALOG."""
