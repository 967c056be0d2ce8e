"""Checks of models against the other tables, and the versions that a registry names."""

from collections.abc import Iterator, Mapping
from typing import Any

from tollway.gateway.settings.errors import Location, did_you_mean, show

Raw = dict[str, Any]
Finding = tuple[Location, str, str]


def check(raw: Raw) -> Iterator[Finding]:
    """Yield every conflict between the models and the other tables of a document."""
    models = _tables(raw, "models")
    tables = _tables(raw, "backends")
    backends = {one["name"]: one for one in tables if isinstance(one.get("name"), str)}
    if models and not isinstance(raw.get("registry"), dict):
        why = 'need a registry that names their versions; write [registry] with kind = "folder"'
        yield ("models",), "", why
    taken: dict[str, int] = {}
    for index, model in enumerate(models):
        name, place = model.get("backend"), ("models", index, "backend")
        if not isinstance(name, str):
            continue  # the model reports it
        backend = backends.get(name)
        if backend is None:
            yield place, show(name), f"is not a backend; {did_you_mean(name, backends)}"
            continue
        if name in taken:
            yield place, show(name), f"is the backend of models[{taken[name]}] already"
        taken.setdefault(name, index)
        if backend.get("kind") == "rules":
            yield place, show(name), "is rules, which have no versions; name a model server"
        if backend.get("replicas") and model.get("url") is not None:
            why = "has replicas, and a version has one address; leave url out and set model"
            yield place, show(name), why
    yield from _rollouts(raw, models)


def _rollouts(raw: Raw, models: list[Raw]) -> Iterator[Finding]:
    """Yield what is wrong with the rollouts that try versions of models."""
    known = {one["name"]: one for one in models if isinstance(one.get("name"), str)}
    tried: dict[str, int] = {}
    for index, rollout in enumerate(_tables(raw, "rollouts")):
        candidate = rollout.get("candidate")
        wanted = candidate.get("registry") if isinstance(candidate, dict) else None
        if not isinstance(wanted, str):
            continue
        place: Location = ("rollouts", index, "candidate", "registry")
        if wanted not in known:
            yield place, show(wanted), f"is not a model; {did_you_mean(wanted, known)}"
        elif rollout.get("backend") != known[wanted].get("backend"):
            why = f"is served by {known[wanted].get('backend')!r}; write that as the backend"
            yield place, show(wanted), why
        elif wanted in tried:
            why = f"is tried by rollouts[{tried[wanted]}] already; remove one of them"
            yield place, show(wanted), why
        tried.setdefault(wanted, index)


def fill(raw: Raw, versions: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each backend of a document the `url` and `model` of the version that it serves."""
    for backend in _tables(raw, "backends"):
        backend.update(versions.get(str(backend.get("name")), {}))


def _tables(raw: Raw, kind: str) -> list[Raw]:
    entries = raw.get(kind)
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
