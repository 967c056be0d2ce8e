"""Loads a configuration from a file and the environment, and reports all problems at once."""

import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from tollway.backends import validation
from tollway.backends.documents import load_reply
from tollway.backends.http.proxies import parse_proxy, proxy_url
from tollway.backends.protocols.registry import protocol
from tollway.backends.rules.backend import WholeRequestRules, open_rules
from tollway.backends.types import HttpReply, Payload
from tollway.gateway.security import tls
from tollway.gateway.settings import cross_checks, environment, open_relay
from tollway.gateway.settings.errors import (
    ConfigError,
    Location,
    Problem,
    key_of,
    of_validation,
    show,
)
from tollway.gateway.settings.registry import checks
from tollway.gateway.settings.rollouts.expansion import NOTHING, expand
from tollway.gateway.settings.root import Settings
from tollway.gateway.settings.sources import extends
from tollway.gateway.settings.types import FOLDER
from tollway.policies.registry import build

_FILE_BYTES_MAX = 4 << 20  # ten thousand tenants need about 1 MiB


def load(
    path: Path,
    environ: Mapping[str, str],
    versions: Mapping[str, Mapping[str, Any]] = NOTHING,
) -> Settings:
    """Load a configuration file with the overrides in `environ`; ConfigError lists all problems.

    This also reads the rules that the file names, and builds its policies with their options.
    `versions`: the `url` and `model` of the versions that a registry names at present, by backend.
    """
    text, folder = _read(path), path.absolute().parent
    settings = parse(text, environ, source=path.name, folder=folder, versions=versions)
    problems = [
        *_unusable_rules(settings, path.name),
        *_unusable_files(settings, path.name),
        *_unusable_options(settings, path.name),
        *_unusable_resorts(settings, path.name),
        *_unusable_secrets(settings, path.name, environ),
        *_unusable_proxies(settings, environ),
        *_missing(settings, path.name),
        *_missing_cipher(settings, path.name),
        *_missing_grpc(settings, path.name),
    ]
    if problems:
        raise ConfigError(problems)
    return settings


def parse(
    text: str,
    environ: Mapping[str, str],
    *,
    source: str = "tollway.toml",
    folder: Path = Path(),
    versions: Mapping[str, Mapping[str, Any]] = NOTHING,
) -> Settings:
    """Parse a configuration's text, as `load` does; its relative paths start at `folder`."""
    raw, bases = extends.resolve(
        _document(text, source), source, lambda name: _document(_read(folder / name), name)
    )
    for table in ("server", "ledger", "journal", "state"):
        raw.setdefault(table, {})  # so that default paths are relative to `folder` too
    overridden, problems = environment.apply(raw, environ, Settings)
    if variable := overridden.get(("extends",)):
        why = "cannot be set by a variable; write it into the file, or name another file"
        problems.append(Problem("environment", variable, why))
    checks.fill(raw, versions)
    rolled = expand(raw, versions)
    settings: Settings | None = None
    try:
        token = FOLDER.set(folder)
        try:
            settings = Settings(**raw)
        finally:
            FOLDER.reset(token)
    except ValidationError as exc:
        problems += [
            _problem(source, location, value, why, overridden)
            for location, value, why in of_validation(exc, Settings)
        ]
    problems += [
        _problem(source, location, value, why, overridden)
        for location, value, why in (*rolled, *cross_checks.check(raw))
    ]
    problems += [
        _problem(source, location, value, why, overridden)
        for location, value, why in extends.shared(raw, bases, folder)
    ]
    if settings is not None:
        problems += [
            _problem(source, ("server", "allow_anonymous"), show(True), why, overridden)
            for why in open_relay.check(settings)
        ]
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as exc:
        # An unclosed string or table is reported "at end of document": add the position.
        end = f"at line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"
        why = f"is not TOML: {exc}".replace("at end of document", end)
        raise ConfigError([Problem(source, "", why)]) from None


def _problem(
    source: str, location: Location, value: str, why: str, overridden: Mapping[Location, str]
) -> Problem:
    for length in range(len(location), 0, -1):
        variable = overridden.get(location[:length])
        if variable is not None:
            return Problem("environment", variable, why, value)
    return Problem(source, key_of(location), why, value)


def _unusable_rules(settings: Settings, source: str) -> Iterator[Problem]:
    for index, backend in enumerate(settings.backends):
        if backend.kind != "rules":
            continue
        key = "rules" if backend.rules is not None else "entry_point"
        # Rules use the protocol of their routes. Rules without a route are read too.
        spoken = {route.protocol for route in settings.routes if backend.name in route.backends}
        try:
            for name in sorted(spoken) or ["oip"]:
                open_rules(protocol(name), rules=backend.rules, entry_point=backend.entry_point)
        except OSError as exc:
            why = f"cannot be read: {exc.strerror}; write the path of a rules file"
            yield Problem(source, f"backends[{index}].{key}", why, show(str(backend.rules)))
        except ValueError as exc:
            yield Problem(source, f"backends[{index}].{key}", str(exc))


def _unusable_files(settings: Settings, source: str) -> Iterator[Problem]:
    served = settings.server.tls
    if served is not None:
        try:
            tls.listening(served.cert, served.key, served.client_ca)
        except OSError as exc:
            why = tls.trouble(exc, served.cert, served.key, served.client_ca)
            yield Problem(source, "server.tls", why)
    for index, backend in enumerate(settings.backends):
        files = backend.tls
        if files is None:
            continue
        try:
            tls.connecting(files.ca, files.cert, files.key)
        except OSError as exc:
            why = tls.trouble(exc, files.ca, files.cert, files.key)
            yield Problem(source, f"backends[{index}].tls", why)


def _unusable_secrets(
    settings: Settings, source: str, environ: Mapping[str, str]
) -> Iterator[Problem]:
    for index, backend in enumerate(settings.backends):
        if not backend.enabled:
            continue
        for place, auth in backend.credentials.items():
            try:
                auth.secret.read(environ)
            except ValueError as exc:
                yield Problem(source, f"backends[{index}].{place}.{auth.key}", str(exc))


def _unusable_proxies(settings: Settings, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Check the proxies from the environment that lead to a backend."""
    for variable in sorted(
        {
            variable
            for backend in settings.backends
            for url in backend.urls
            for _, variable in [proxy_url(url, backend.proxy_setting, environ)]
            if variable
        }
    ):
        try:
            parse_proxy(environ[variable])
        except ValueError as exc:
            yield Problem("environment", variable, str(exc), "(hidden)")


def _unusable_options(settings: Settings, source: str) -> Iterator[Problem]:
    for index, route in enumerate(settings.routes):
        try:
            build(route.policy, route.to_objective(), options=route.policy_options, seed=0)
        except ValueError as exc:
            yield Problem(source, f"routes[{index}].policy_options", str(exc))


def _unusable_resorts(settings: Settings, source: str) -> Iterator[Problem]:
    """Check each static response against the response schema of its route."""
    for index, route in enumerate(settings.routes):
        if route.static_response is None:
            continue
        clauses = validation.Validator(
            [clause.to_clause() for clause in route.response_schema], "outputs"
        )
        body = route.static_response.encode()
        try:
            protocol(route.protocol).answer(
                Payload(), HttpReply(200, [], WholeRequestRules(body)), body
            )
            breach = clauses.breach(load_reply(body))
        except ValueError as exc:
            why = f"is not a valid reply of protocol {route.protocol}: {exc}"
            yield Problem(
                source, f"routes[{index}].static_response", why, show(route.static_response)
            )
        else:
            if breach is not None:
                why = f"violates `response_schema`: {breach.field} {breach.why}"
                yield Problem(source, f"routes[{index}].static_response", why)


def _missing(settings: Settings, source: str) -> Iterator[Problem]:
    if settings.tracing.endpoint is not None and find_spec("opentelemetry") is None:
        why = "requires OpenTelemetry; install it in a clone of Tollway: pip install '.[otel]'"
        yield Problem(source, "tracing.endpoint", why)


def _missing_cipher(settings: Settings, source: str) -> Iterator[Problem]:
    if settings.capture.key is not None and find_spec("cryptography") is None:
        why = 'requires cryptography; install it: pip install "tollway[capture]"'
        yield Problem(source, "capture.key", why)


def _missing_grpc(settings: Settings, source: str) -> Iterator[Problem]:
    if settings.grpc is not None and (find_spec("grpc") is None or find_spec("google") is None):
        why = 'requires grpcio and protobuf; install them: pip install "tollway[grpc]"'
        yield Problem(source, "grpc", why)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as exc:
        why = f"cannot be read: {exc.strerror}; give the path of a file such as tollway.toml"
        raise ConfigError([Problem(str(path), "", why)]) from None
    if len(content) > _FILE_BYTES_MAX:
        why = f"is larger than {_FILE_BYTES_MAX} bytes; divide its tenants among several gateways"
        raise ConfigError([Problem(path.name, "", why)])
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        why = f"is not UTF-8 at byte {exc.start}; save it as UTF-8"
        raise ConfigError([Problem(path.name, "", why)]) from None
