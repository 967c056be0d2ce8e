"""Writes out what a rollout adds to a configuration: the candidate's backend, on the routes.

It works on the raw document, before its types are validated, so that a candidate with only a `url`
is a backend like any other afterwards, with all checks of one. `versions` says which candidate a
registry names at present, by rollout: the keys `url`, `model` and `price`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tollway.gateway.settings.errors import Location, did_you_mean, show

Raw = dict[str, Any]
Finding = tuple[Location, str, str]

EACH = "request"  # `sticky` of a rollout that draws a version for each request
NOTHING: Mapping[str, Mapping[str, Any]] = {}
OWN = ("url", "model", "price")
"""What a candidate says of itself; all else is the stable backend's."""
_OTHERS = ("replicas", "name", "enabled", "catalog")
"""What a stable backend's table has that is not its candidate's."""


def expand(raw: Raw, versions: Mapping[str, Mapping[str, Any]] = NOTHING) -> list[Finding]:
    """Add the candidates to a document; return what is wrong with them."""
    findings: list[Finding] = []
    taken: dict[tuple[str, str], int] = {}
    for index, rollout in enumerate(_tables(raw, "rollouts")):
        findings += _expand(raw, index, rollout, versions, taken)
    return [*findings, *_sticky_beside_others(raw)]


def _sticky_beside_others(raw: Raw) -> Iterator[Finding]:
    """Yield the rollouts of a route that has several, of which one is sticky.

    A request has one key, so the sticky one would decide for the others too.
    """
    firsts: dict[str, tuple[int, bool]] = {}
    for index, rollout in enumerate(_tables(raw, "rollouts")):
        stable, is_sticky = rollout.get("backend"), rollout.get("sticky", EACH) != EACH
        for route in _routes(raw, rollout, stable) if isinstance(stable, str) else ():
            name = str(route.get("name"))
            first, is_first_sticky = firsts.setdefault(name, (index, is_sticky))
            if first != index and (is_sticky or is_first_sticky):
                why = f"is on route {name!r}, which has another rollout, rollouts[{first}]"
                where: Location = ("rollouts", index, "backend")
                yield where, show(stable), f"{why}; sticky needs a route of its own"
                break


def _expand(
    raw: Raw,
    index: int,
    rollout: Raw,
    versions: Mapping[str, Mapping[str, Any]],
    taken: dict[tuple[str, str], int],
) -> Iterator[Finding]:
    name, stable, candidate = (rollout.get(key) for key in ("name", "backend", "candidate"))
    if not (isinstance(name, str) and isinstance(stable, str) and isinstance(candidate, dict)):
        return  # the model reports it
    place: Location = ("rollouts", index)
    backends = {b["name"]: b for b in _tables(raw, "backends") if isinstance(b.get("name"), str)}
    if stable not in backends:
        why = f"is not a backend; {did_you_mean(stable, backends)}"
        yield (*place, "backend"), show(stable), why
        return
    routes = list(_routes(raw, rollout, stable))
    if not routes:
        why = f"is on none of the rollout's routes; add {stable!r} to their backends"
        yield (*place, "backend"), show(stable), why
        return
    for route in routes:
        other = taken.setdefault((str(route.get("name")), stable), index)
        if other != index:
            why = f"has a rollout on this route already, rollouts[{other}]; give each other routes"
            yield (*place, "backend"), show(stable), why
            return
    named = candidate.get("backend")
    if isinstance(named, str):
        yield from _named(place, named, backends, routes)
    else:
        if name in backends:
            yield (*place, "name"), show(name), "is also the name of a backend; rename one of them"
            return
        given = candidate if "url" in candidate else versions.get(name)
        if given is None:  # the registry has no candidate yet
            return
        raw["backends"].append(_backend(backends[stable], name, given))
        named = name
    for route in routes:
        if named not in route["backends"]:
            route["backends"] = [*route["backends"], named]


def _named(
    place: Location, named: str, backends: Mapping[str, Raw], routes: list[Raw]
) -> Iterator[Finding]:
    if named not in backends:
        why = f"is not a backend; {did_you_mean(named, backends)}"
        yield (*place, "candidate", "backend"), show(named), why
    for route in routes:
        if named in route["backends"]:
            why = f"is among the backends of route {route.get('name')!r}; remove it there"
            yield (*place, "candidate", "backend"), show(named), why


def _routes(raw: Raw, rollout: Raw, stable: str) -> Iterator[Raw]:
    """Yield the tables of a rollout's routes that have its stable backend."""
    chosen = rollout.get("routes")
    for route in _tables(raw, "routes"):
        named = not chosen or (isinstance(chosen, list) and route.get("name") in chosen)
        backends = route.get("backends")
        if named and isinstance(backends, list) and stable in backends:
            yield route


def _backend(stable: Raw, name: str, given: Mapping[str, Any]) -> Raw:
    kept = {key: value for key, value in stable.items() if key not in _OTHERS}
    return {**kept, "name": name, **{key: given[key] for key in OWN if key in given}}


def _tables(raw: Raw, kind: str) -> list[Raw]:
    entries = raw.get(kind)
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
