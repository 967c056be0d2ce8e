"""Checks across the tables of a configuration: references by name, and route paths.

The checks read the raw document, before its types are validated, so that a dangling name and a
mistyped number elsewhere are reported together. Values of the wrong type are skipped here: the
model reports them.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import combinations
from typing import Any, Literal

from tollway.backends.protocols.registry import LANGUAGE_MODELS, PROTOCOLS
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.settings.errors import Location, did_you_mean, show
from tollway.gateway.settings.registry.checks import check as of_models

Finding = tuple[Location, str, str]
"""The location, its value as displayed, and what is wrong with it."""

Raw = dict[str, Any]

# The gateway answers these itself, before it matches any route.
_RESERVED = ("/_tollway", "/metrics", "/livez", "/healthz", "/readyz")


def check(raw: Raw) -> Iterator[Finding]:
    """Yield every conflict between the tables of a document."""
    for kind in (
        "devices",
        "backends",
        "routes",
        "features",
        "tenants",
        "budgets",
        "fixed_costs",
        "scaling",
        "events",
        "models",
        "rollouts",
        "webhooks",
    ):
        yield from _duplicate_names(raw, kind)
    yield from _devices(raw)
    yield from _routes(raw)
    yield from _paths(raw)
    yield from _features(raw)
    yield from _tenants(raw)
    yield from _hashes(raw)
    yield from _scopes(raw)
    yield from _fixed_costs(raw)
    yield from _scaling(raw)
    yield from _events(raw)
    yield from _workers(raw)
    yield from _grpc(raw)
    yield from of_models(raw)


def _workers(raw: Raw) -> Iterator[Finding]:
    workers, url = _table(raw, "server").get("workers"), _table(raw, "ledger").get("url")
    shared = not (isinstance(url, str) and url.startswith("memory:"))
    if isinstance(workers, int) and workers > 1 and not shared:
        why = f"cannot be shared by server.workers = {workers}; write sqlite:///tollway.db"
        yield ("ledger", "url"), show(url), why


def _grpc(raw: Raw) -> Iterator[Finding]:
    if "grpc" not in raw or any(one.get("protocol") == "oip" for _, one in _tables(raw, "routes")):
        return
    why = 'serves routes with protocol = "oip", and there is none; add one, or remove the table'
    yield ("grpc",), "", why


def _tables(raw: Raw, kind: str) -> list[tuple[int, Raw]]:
    entries = raw.get(kind)
    if not isinstance(entries, list):
        return []
    return [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict)]


def _table(raw: Raw, key: str) -> Raw:
    inner = raw.get(key)
    return inner if isinstance(inner, dict) else {}


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _by_name(raw: Raw, kind: str) -> dict[str, Raw]:
    tables = _tables(raw, kind)
    return {entry["name"]: entry for _, entry in tables if isinstance(entry.get("name"), str)}


def _duplicate_names(raw: Raw, kind: str) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, entry in _tables(raw, kind):
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        if name in first:
            why = f"is also the name of {kind}[{first[name]}]; rename one of them"
            yield (kind, index, "name"), show(name), why
        first.setdefault(name, index)


def _devices(raw: Raw) -> Iterator[Finding]:
    devices, used = _by_name(raw, "devices"), set[str]()
    for index, backend in _tables(raw, "backends"):
        name = backend.get("device")
        if isinstance(name, str):
            used.add(name)
            if name not in devices:
                why = f"is not a device; {did_you_mean(name, devices, otherwise='add it')}"
                yield ("backends", index, "device"), show(name), why
    for index, device in _tables(raw, "devices"):
        name = device.get("name")
        if isinstance(name, str) and name not in used:
            why = "is the device of no backend; set it as `device` of one, or remove it"
            yield ("devices", index, "name"), show(name), why


def _scaling(raw: Raw) -> Iterator[Finding]:
    backends = _by_name(raw, "backends")
    for index, entry in _tables(raw, "scaling"):
        name, place = entry.get("name"), ("scaling", index, "name")
        if not isinstance(name, str):
            continue
        if entry.get("kind") == "gateway":
            if name in backends:
                yield place, show(name), 'is a backend; write another name, or kind = "backend"'
        elif name not in backends:
            yield place, show(name), f"is not a backend; {did_you_mean(name, backends)}"
        elif backends[name].get("kind") == "rules":
            yield place, show(name), "has no replicas: rules run inside the gateway; remove it"
        else:
            yield from _start_wait(index, entry, backends[name])
        yield from _replica_budget(raw, index, entry)


def _start_wait(
    index: int, entry: Mapping[str, Any], backend: Mapping[str, Any]
) -> Iterator[Finding]:
    wait_s = entry.get("start_wait_s")
    if not _is_finite(wait_s):
        return
    for key, usual in (("timeout_s", 30), ("first_byte_timeout_s", None)):
        limit_s = backend.get(key, usual)
        if _is_finite(limit_s) and limit_s <= wait_s:
            why = f"is not below the {key} of the backend, {limit_s}; raise that"
            yield ("scaling", index, "start_wait_s"), show(wait_s), why


def _is_finite(value: Any) -> bool:
    """Return whether a raw value is a number that can be compared."""
    return isinstance(value, int | float | Decimal) and Decimal(value).is_finite()


def _events(raw: Raw) -> Iterator[Finding]:
    routes = _by_name(raw, "routes")
    for index, event in _tables(raw, "events"):
        for at, name in enumerate(_texts(event.get("routes"))):
            if name not in routes:
                place: Location = ("events", index, "routes", at)
                yield place, show(name), f"is not a route; {did_you_mean(name, routes)}"


def _replica_budget(raw: Raw, index: int, entry: Mapping[str, Any]) -> Iterator[Finding]:
    name, budgets = entry.get("budget"), _by_name(raw, "budgets")
    if not isinstance(name, str):
        return
    place: Location = ("scaling", index, "budget")
    if name not in budgets:
        near = did_you_mean(name, budgets, otherwise="add it")
        yield place, show(name), f"is not a budget; {near}"
    elif budgets[name].get("window", "lifetime") == "lifetime":
        why = "has no window, so what it pays for in an hour is unknown; set its window"
        yield place, show(name), why


def _routes(raw: Raw) -> Iterator[Finding]:
    backends = _by_name(raw, "backends")
    for index, route in _tables(raw, "routes"):
        names = _texts(route.get("backends"))
        for at, name in enumerate(names):
            place: Location = ("routes", index, "backends", at)
            if name not in backends:
                yield place, show(name), f"is not a backend; {did_you_mean(name, backends)}"
            else:
                yield from _spoken(place, route, backends[name])
        if names and all(backends.get(name, {}).get("enabled") is False for name in names):
            why = "contains only disabled backends; set enabled = true on one of them"
            yield ("routes", index, "backends"), show(names), why
        yield from _judges(index, route, backends)
        yield from _embedders(index, route, backends)
        baseline = route.get("baseline")
        if isinstance(baseline, str) and backends.get(baseline, {}).get("enabled") is False:
            why = "is disabled, but the floor depends on it; enable it or name another backend"
            yield ("routes", index, "baseline"), show(baseline), why


def _features(raw: Raw) -> Iterator[Finding]:
    groups = _by_name(raw, "features")
    for index, route in _tables(raw, "routes"):
        for at, name in enumerate(_texts(route.get("features"))):
            if name not in groups:
                why = f"is no group of [[features]]; {did_you_mean(name, groups)}"
                yield ("routes", index, "features", at), show(name), why


def _judges(index: int, route: Raw, backends: dict[str, Raw]) -> Iterator[Finding]:
    for at, signal in _tables(route, "signals"):
        if signal.get("kind") == "judge":
            place = ("routes", index, "signals", at, "backend")
            yield from _of_openai(place, signal.get("backend"), backends)


def _embedders(index: int, route: Raw, backends: dict[str, Raw]) -> Iterator[Finding]:
    place: Location = ("routes", index, "context", "embedding_backend")
    yield from _of_openai(place, _table(route, "context").get("embedding_backend"), backends)
    place = ("routes", index, "confidence", "verifier")
    yield from _of_openai(place, _table(route, "confidence").get("verifier"), backends)


def _of_openai(place: Location, name: Any, backends: dict[str, Raw]) -> Iterator[Finding]:
    if not isinstance(name, str):
        return
    if name not in backends:
        yield place, show(name), f"is not a backend; {did_you_mean(name, backends)}"
    elif backends[name].get("protocol") != "openai":
        why = 'must have protocol = "openai"; add a backend with that protocol'
        yield place, show(name), why


def _spoken(place: Location, route: Raw, backend: Raw) -> Iterator[Finding]:
    wanted, spoken = route.get("protocol"), backend.get("protocol")
    known = list(PROTOCOLS)  # a list, since the configured value may be unhashable
    if backend.get("kind") == "rules" or wanted not in known or spoken not in known:
        return  # an unknown protocol is reported at its own key
    if wanted == spoken:
        return
    why = f"has protocol {spoken!r}, but the route has {wanted!r}; use the same protocol for both"
    yield place, show(backend["name"]), why


def _tenants(raw: Raw) -> Iterator[Finding]:
    is_open = _table(raw, "server").get("allow_anonymous") is True
    if not raw.get("tenants") and not is_open:
        why = "is empty, so no client could call; add a tenant with a key from: tollway keys new, "
        yield ("tenants",), "", f"{why}or set allow_anonymous = true in [server] for a demo"
    routes = _by_name(raw, "routes")
    for index, tenant in _tables(raw, "tenants"):
        if tenant.get("name") == ANONYMOUS:
            why = "is reserved for callers without a key; write another name"
            yield ("tenants", index, "name"), show(ANONYMOUS), why
        for at, name in enumerate(_texts(tenant.get("routes"))):
            if name not in routes:
                why = f"is not a route; {did_you_mean(name, routes)}"
                yield ("tenants", index, "routes", at), show(name), why


def _hashes(raw: Raw) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    peppered: list[Location] = []
    admin = _table(raw, "server").get("admin_key_hash")
    held: list[tuple[Location, str, str]] = []
    if isinstance(admin, str):
        held.append((("server", "admin_key_hash"), "the control plane", admin))
    viewer = _table(raw, "server").get("viewer_key_hash")
    if isinstance(viewer, str):
        held.append((("server", "viewer_key_hash"), "the viewer", viewer))
    for index, tenant in _tables(raw, "tenants"):
        owner = f"tenants[{index}]"
        if isinstance(tenant.get("key_hash"), str):
            held.append((("tenants", index, "key_hash"), owner, tenant["key_hash"]))
        for at, value in enumerate(_texts(tenant.get("key_hashes"))):
            held.append((("tenants", index, "key_hashes", at), owner, value))
        for at, key in _tables(tenant, "keys"):
            if isinstance(key.get("hash"), str):
                held.append((("tenants", index, "keys", at, "hash"), owner, key["hash"]))
    for place, owner, value in held:
        if value in owners:
            why = f"is already the key of {owners[value]}; use a different key for each"
            yield place, "(hidden)", why
        owners.setdefault(value, owner)
        if value.startswith("hmac-"):
            peppered.append(place)
    if peppered and not raw.get("pepper"):
        why = "was made with a pepper, but none is set; set TOLLWAY_PEPPER, or hash without it"
        yield peppered[0], "(hidden)", why


def _scopes(raw: Raw) -> Iterator[Finding]:
    tenants, routes = _by_name(raw, "tenants"), _by_name(raw, "routes")
    known = {
        "tenant": set(tenants),
        "route": set(routes),
        "backend": set(_by_name(raw, "backends")),
    }
    if _table(raw, "server").get("allow_anonymous") is True:
        known["tenant"].add(ANONYMOUS)
    for index, budget in _tables(raw, "budgets"):
        scope = _table(budget, "scope")
        unknown = False
        for part, names in known.items():
            name = scope.get(part)
            if isinstance(name, str) and name not in names:
                unknown = True
                why = f"is not a {part}, so the budget matches nothing; {did_you_mean(name, names)}"
                yield ("budgets", index, "scope", part), show(name), why
        if not unknown:
            yield from _reachable(index, budget, tenants, routes, raw)


def _fixed_costs(raw: Raw) -> Iterator[Finding]:
    for index, cost in _tables(raw, "fixed_costs"):
        for part in ("route", "backend"):
            names, name = _by_name(raw, f"{part}s"), cost.get(part)
            if isinstance(name, str) and name not in names:
                why = f"is not a {part}; {did_you_mean(name, names)}"
                yield ("fixed_costs", index, part), show(name), why


def _called(route: Raw) -> list[str]:
    """Return the backends that a route calls: its own, its judges, and that of its embeddings."""
    others = [signal.get("backend") for _, signal in _tables(route, "signals")]
    others.append(_table(route, "context").get("embedding_backend"))
    others.append(_table(route, "confidence").get("verifier"))
    return [*_texts(route.get("backends")), *_texts(others)]


def _reachable(
    index: int, budget: Raw, tenants: dict[str, Raw], routes: dict[str, Raw], raw: Raw
) -> Iterator[Finding]:
    """Check that at least one call can match every part of a scope."""
    scope = _table(budget, "scope")
    open_to = tenants.get(str(scope.get("tenant")), {}).get("routes")
    reached = [
        route
        for name, route in routes.items()
        if scope.get("route") in (None, name)
        and (not isinstance(open_to, list) or name in open_to)
        and (scope.get("backend") is None or scope["backend"] in _called(route))
    ]
    place: Location = ("budgets", index, "scope")
    if routes and not reached:
        yield (
            place,
            "",
            "matches no calls, because no route has all of its parts; remove one of them",
        )
    elif budget.get("then") == "rules":
        kinds = {name: backend.get("kind") for name, backend in _by_name(raw, "backends").items()}
        offered = {kinds.get(name) for route in reached for name in _texts(route.get("backends"))}
        if "rules" not in offered:
            why = (
                'requires a backend with kind = "rules" on a route in its scope; add one, or write '
            )
            yield ("budgets", index, "then"), show("rules"), f'{why}then = "reject"'


def check_path(path: str) -> None:
    """Raise ValueError if a path is not a valid route path."""
    example = "write it like /v2/models/{model}/infer or /v1/*"
    if not path.startswith("/") or not path.isascii() or any(c <= " " or c in "?#" for c in path):
        raise ValueError(f"must begin with / and contain no space, ? or #; {example}")
    *inner, last = path[1:].split("/")
    for segment in (*inner, "" if last == "*" else last):
        named = segment.startswith("{") and segment.endswith("}") and segment[1:-1].isidentifier()
        if not named and any(c in "{}*" for c in segment):
            raise ValueError(
                f"may have {{name}} only as a whole segment and * only as a final /*; {example}"
            )
    for reserved in _RESERVED:
        if path == reserved or path.startswith(f"{reserved}/"):
            raise ValueError(f"is reserved for the gateway ({reserved}); choose another path")


def _paths(raw: Raw) -> Iterator[Finding]:
    routes = [(i, r) for i, r in _tables(raw, "routes") if isinstance(r.get("path"), str)]
    for (first, one), (second, two) in combinations(routes, 2):
        path, other = one["path"], two["path"]
        how = compare_paths(path, other)
        if how == "crossed" or (how == "same" and not (path == other and _told_apart(one, two))):
            why = f"matches the same requests as routes[{first}] ({path}); change one of them"
            if _of_language(one, two):
                why += ", or set different `models` on each"
            yield ("routes", second, "path"), show(other), why


def _told_apart(one: Raw, two: Raw) -> bool:
    """Return whether two routes with the same path differ in their model names."""
    mine, others = [_every(route.get("models")) for route in (one, two)]
    if not isinstance(mine, list) or not isinstance(others, list):
        return True  # the model reports it
    return _of_language(one, two) and not any(name in others for name in mine)


def _of_language(one: Raw, two: Raw) -> bool:
    """Return whether two routes have one protocol, whose requests name a model."""
    wanted = one.get("protocol")
    return wanted in LANGUAGE_MODELS and wanted == two.get("protocol")


def _every(models: Any) -> Any:
    """Return the models of a route, with an empty name for all that no other route has."""
    if models == "*":
        return [""]
    listed = models if isinstance(models, list) else [models]
    return ["" if name == "*" else name for name in listed if name] or [""]


def compare_paths(a: str, b: str) -> Literal["apart", "same", "nested", "crossed"]:
    """Compare the sets of requests that two paths match.

    `nested`: one path matches everything that the other does, and more; the other is more specific
    and is tried first. `crossed`: some requests match both paths, and neither is more specific.
    """
    a_wider = b_wider = False
    left, right = a.split("/"), b.split("/")
    for at in range(max(len(left), len(right))):
        if at >= len(left) or at >= len(right):
            return "apart"
        one, two = left[at], right[at]
        if one == "*" or two == "*":
            a_wider, b_wider = a_wider or two != "*", b_wider or one != "*"
            break
        one_named, two_named = one.startswith("{"), two.startswith("{")
        if not one_named and not two_named and one != two:
            return "apart"
        a_wider, b_wider = a_wider or one_named > two_named, b_wider or two_named > one_named
    if a_wider and b_wider:
        return "crossed"
    return "nested" if a_wider or b_wider else "same"
