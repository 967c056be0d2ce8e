"""Reads `SCENARIO.toml` into a scenario, with complete error reports.

`load` reads all of it and reports all errors at once. `put` changes one value of the document by
its dotted name, as `--set` and grids do.
"""

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tollway.gateway.settings.errors import (
    ConfigError,
    Problem,
    did_you_mean,
    key_of,
    of_validation,
)
from tollway.gateway.settings.types import FOLDER
from tollway.simulations.world.scenario import Scenario
from tollway.simulations.world.scenario_checks import disagreements

REFERRED = frozenset({"name", "classes", "tenants", "gateways", "hours"})  # by other tables
FOLDER_OF_SHIPPED = Path(__file__).parents[1] / "scenarios"


def shipped() -> list[str]:
    """Return the names of the included scenarios."""
    return sorted(path.stem for path in FOLDER_OF_SHIPPED.glob("*.toml"))


def find(name: str) -> Path:
    """Return the file of a scenario, given its path or the name of an included one."""
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        inside = FOLDER_OF_SHIPPED / f"{name}.toml"
        if not inside.exists():
            near = did_you_mean(name, shipped())
            why = f"is neither a file nor an included scenario; {near}"
            raise ConfigError([Problem(name, "", why)])
        return inside
    return path


def load(name: str, changes: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario by path or name, with changes; ConfigError lists all errors."""
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = f"cannot be read: {getattr(exc, 'strerror', None) or exc}; name a scenario's file"
        raise ConfigError([Problem(str(path), "", why)]) from None
    return parse(text, source=path.name, folder=path.absolute().parent, changes=changes)


def parse(
    text: str,
    *,
    source: str = "scenario.toml",
    folder: Path = Path(),
    changes: Mapping[str, Any] | None = None,
) -> Scenario:
    """Parse a scenario's text, as `load` does; relative paths are resolved against `folder`."""
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError([Problem(source, "", f"is not TOML: {exc}")]) from None
    for key, value in (changes or {}).items():
        put(raw, key, value)
    token = FOLDER.set(folder)
    try:
        return _checked(raw, source)
    finally:
        FOLDER.reset(token)


def _checked(raw: dict[str, Any], source: str) -> Scenario:
    """Return the scenario; ConfigError lists the errors of single values and between tables."""
    try:
        scenario = Scenario(**raw)
    except ValidationError as exc:
        problems = [
            Problem(source, key_of(location), why, value)
            for location, value, why in of_validation(exc, Scenario)
        ]
        rest = _without(raw, [error["loc"] for error in exc.errors()])
        if rest is not None:
            problems += [Problem(source, *problem) for problem in disagreements(rest)]
        raise ConfigError(problems) from None
    if found := [Problem(source, *problem) for problem in disagreements(scenario)]:
        raise ConfigError(found)
    return scenario


def _without(raw: dict[str, Any], locations: list[tuple[str | int, ...]]) -> Scenario | None:
    """Return the scenario without its invalid values; None if others depend on these.

    Without a name, say, every mention of it would be reported too.
    """
    rest = deepcopy(raw)
    for location in locations:
        if not REFERRED.isdisjoint(map(str, location)):
            return None
        _remove(rest, location)
    try:
        return Scenario(**rest)
    except ValidationError:  # a required value is invalid
        return None


def _remove(raw: dict[str, Any], location: tuple[str | int, ...]) -> None:
    """Remove the key at a location; its last steps may name a kind of value, not a place."""
    place: Any = raw
    holder, key = place, location[0]
    for step in location:
        if not isinstance(place, (dict, list)):
            break
        holder, key = place, step
        place = place.get(step) if isinstance(place, dict) else place[int(step)]
    if isinstance(holder, dict):
        holder.pop(key, None)


def put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted name; list members are addressed by `name` or by index.

    `backends.large.price.per_request_usd`, `changes.0.at_h`. ConfigError if there is no such
    member; a missing table is created.
    """
    *way, last = key.split(".")
    place: Any = raw
    for step in way:
        inside = isinstance(place, list)
        place = _member(place, step, key) if inside else place.setdefault(step, {})
        if not isinstance(place, (dict, list)):
            raise ConfigError([Problem("--set", key, f"{step!r} is a value and has no keys")])
    if isinstance(place, list):
        raise ConfigError([Problem("--set", key, "names a list; name one key of one member")])
    place[last] = value


def _member(members: list[Any], step: str, key: str) -> Any:
    if step.isdigit() and int(step) < len(members):
        return members[int(step)]
    named = {str(member.get("name", at)): member for at, member in enumerate(members)}
    if step not in named:
        why = f"there is no member {step!r}; {did_you_mean(step, named)}"
        raise ConfigError([Problem("--set", key, why)])
    return named[step]
