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

STAND_INS: dict[str, Any] = {
    "price": {"per_request_usd": Decimal("0.001")},
    "limit_usd": Decimal(1),
    "window": "day",
    "at_h": 0,
    "for_h": 1,
    "times": 2,
}
"""Valid values of required keys, in the place of invalid or missing ones while checks go on."""

REFERRED: dict[str, tuple[str, ...]] = {
    "hours": (".at_h", "requests_per_day"),
    "requests_per_day": ("requests_per_day",),
    "gateways": (".cut",),
    "tenants": (".liar",),
    "tenant": (".liar",),
    "classes": (".quality.",),
    "name": (".backend", ".budget", ".baseline", ".policy_options", ".name"),
    "policy": (".policy_options",),
    "objective": (".policy_options",),
}
"""Parts of keys whose checks depend on a key: if it is invalid, they would report it again."""

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
    problems: list[Problem] = []
    for key, value in (changes or {}).items():
        try:
            put(raw, key, value)
        except ConfigError as exc:
            problems += exc.problems
    token = FOLDER.set(folder)
    try:
        scenario = _checked(raw, source)
    except ConfigError as exc:
        problems += exc.problems
    finally:
        FOLDER.reset(token)
    if problems:
        raise ConfigError(problems)
    return scenario


def _checked(raw: dict[str, Any], source: str) -> Scenario:
    """Return the scenario; ConfigError lists the errors of single values and between tables."""
    try:
        scenario = Scenario(**raw)
    except ValidationError as exc:
        problems = [
            Problem(source, key_of(location), why, value)
            for location, value, why in of_validation(exc, Scenario)
        ]
        locations = [error["loc"] for error in exc.errors()]
        rest = _mended(raw, locations)
        if rest is not None:
            unsure = _depending(locations)
            problems += [
                Problem(source, key, why, value)
                for key, why, value in disagreements(rest)
                if not any(part in key for part in unsure)
            ]
        raise ConfigError(_once(problems)) from None
    if found := [Problem(source, *problem) for problem in disagreements(scenario)]:
        raise ConfigError(_once(found))
    return scenario


def _once(problems: list[Problem]) -> list[Problem]:
    """Return the problems, the first of each key only: two checks may find the same mistake."""
    return list({problem.key: problem for problem in reversed(problems)}.values())[::-1]


def _depending(locations: list[tuple[str | int, ...]]) -> set[str]:
    """Return parts of the keys whose checks depend on values at these locations."""
    steps = {step for location in locations for step in location if isinstance(step, str)}
    return {part for step in steps for part in REFERRED.get(step, ())}


def _mended(raw: dict[str, Any], locations: list[tuple[str | int, ...]]) -> Scenario | None:
    """Return the scenario without its invalid values; None if nothing can stand in for one."""
    rest = deepcopy(raw)
    for number, location in enumerate(locations):
        _mend(rest, location, f"unnamed-{number}")
    try:
        return Scenario(**rest)
    except ValidationError:  # there are no backends, say
        return None


def _mend(raw: dict[str, Any], location: tuple[str | int, ...], name: str) -> None:
    """Replace or remove the key at a location; its last steps may name a kind, not a place."""
    place: Any = raw
    holder, key = place, location[0]
    for step in location:
        if not isinstance(place, (dict, list)):
            break
        holder, key = place, step
        place = _inside(place, step)
    if not isinstance(holder, dict):
        return
    stand_in = name if key == "name" else STAND_INS.get(str(key))
    if stand_in is None:
        holder.pop(key, None)
    else:
        holder[key] = stand_in


def _inside(place: dict[str, Any] | list[Any], step: str | int) -> Any:
    if isinstance(place, dict):
        return place.get(str(step))
    return place[step] if isinstance(step, int) and step < len(place) else None


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
    tables = [member for member in members if isinstance(member, dict)]
    named = {str(member.get("name", at)): member for at, member in enumerate(tables)}
    if step not in named:
        why = f"there is no member {step!r}; {did_you_mean(step, named)}"
        raise ConfigError([Problem("--set", key, why)])
    return named[step]
