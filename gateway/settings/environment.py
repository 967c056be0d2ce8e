"""Environment overrides: `TOLLWAY_SERVER__LISTEN=...` sets `listen` in `[server]`.

Two underscores go one level down; case does not matter. An entry of a list of tables is selected by
its name, with an underscore for any character that is neither letter nor digit:
`TOLLWAY_BACKENDS__DIGITS_GPU__URL`. A value is used verbatim where the key takes a string, and is
otherwise parsed as TOML. A secret may be in a file instead, as containers get them mounted: with
`_FILE` after the key's name, the value is the file's path. It is read at the start and at every
reload. A variable with the prefix that matches no key is an error: ignoring
a misspelt override would run the gateway with a setting that was not intended. Variables that
Kubernetes sets for a service called `tollway` are ignored (`services`).
"""

import re
import tomllib
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from tollway.gateway.security.secrets import FileSecret
from tollway.gateway.settings import services
from tollway.gateway.settings.errors import Location, Problem, did_you_mean, model_in

PREFIX = "TOLLWAY_"
COMMAND_LINE = frozenset({"TOLLWAY_URL", "TOLLWAY_KEY", "TOLLWAY_KEY_FILE"})
"""Variables of the commands that query a running gateway; not part of its configuration."""

_TEXTS = (str, SecretStr, Path, Literal)


def apply(
    raw: dict[str, Any], environ: Mapping[str, str], model: type[BaseModel]
) -> tuple[dict[Location, str], list[Problem]]:
    """Apply the overrides in `environ` to `raw`.

    Returns the variable that set each overridden location, and a problem for each variable that
    matches no key in `model`.
    """
    overridden: dict[Location, str] = {}
    problems: list[Problem] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in COMMAND_LINE:
            continue
        if services.is_of_a_service(variable, environ[variable]):
            continue
        try:
            location = _put(raw, model, variable, environ[variable])
        except ValueError as exc:
            problems.append(Problem("environment", variable, str(exc)))
        else:
            if location in overridden:
                why = f"sets the same key as {overridden[location]}; unset one of them"
                problems.append(Problem("environment", variable, why))
            overridden[location] = variable
    return overridden, problems


def _put(raw: dict[str, Any], model: type[BaseModel], variable: str, value: str) -> Location:
    """Write one variable's value into `raw` and return its location; ValueError if none matches.

    Descends the document and the model together, one step of the variable's name at a time.
    `resolved` is the part of the name that has been resolved.
    """
    if not value:
        raise ValueError("is empty; unset it or give it a value")
    table, resolved = raw, PREFIX
    location: Location = ()
    steps = variable.removeprefix(PREFIX).split("__")
    while True:
        key, steps = steps[0].lower(), steps[1:]
        if not steps and (secret := _secret_in_a_file(model, key)):
            table[secret] = _content(Path(value))
            return (*location, secret)
        field = _field(model, key, resolved)
        location, resolved = (*location, key), f"{resolved}{key.upper()}__"
        inner = model_in(field.annotation)
        if not steps:
            table[key] = _read(value, field.annotation)
            return location
        if inner is None:
            _put_free(table, key, steps, value, field.annotation)
            return (*location, *(step.lower() for step in steps))
        if typing.get_origin(field.annotation) is tuple:
            index = _entry(table.get(key), steps[0], resolved)
            table, location = table[key][index], (*location, index)
            resolved, steps = f"{resolved}{steps[0].upper()}__", steps[1:] or [""]
        else:
            table = _table(table, key)
        model = inner


def _secret_in_a_file(model: type[BaseModel], key: str) -> str:
    """Return the secret key of `model` that `key` gives a file for; empty if it is no such key."""
    name = key.removesuffix("_file")
    if name == key or key in model.model_fields or name not in model.model_fields:
        return ""
    return name if _takes((model.model_fields[name].annotation,), {SecretStr}) else ""


def _content(path: Path) -> str:
    if not path.is_absolute():
        raise ValueError("must be an absolute path, such as /run/secrets/tollway/admin-key")
    return FileSecret(path).read({})


def _field(model: type[BaseModel], key: str, variable: str) -> FieldInfo:
    field = model.model_fields.get(key)
    if field is None:
        names = [f"{variable}{name.upper()}" for name in model.model_fields]
        raise ValueError(f"unknown variable; {did_you_mean(f'{variable}{key.upper()}', names)}")
    return field


def _put_free(
    table: dict[str, Any], key: str, steps: Sequence[str], value: str, annotation: Any
) -> None:
    """Write into a table that accepts keys of any name, such as a price."""
    if typing.get_origin(annotation) is not dict:
        raise ValueError(f"unknown variable; {key!r} is a single value, not a table")
    table = _table(table, key)
    for step in steps[:-1]:
        table = _table(table, step.lower())
    table[steps[-1].lower()] = _read(value, None)


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    inner = table.setdefault(key, {})
    if not isinstance(inner, dict):
        raise ValueError(f"{key!r} is not a table in the file, so its keys cannot be overridden")
    return inner


def _entry(entries: Any, wanted: str, variable: str) -> int:
    """Return the index of the entry with the name `wanted`, in the spelling of variables."""
    spelt = [_spell(entry) for entry in entries] if isinstance(entries, list) else []
    if spelt.count(wanted.upper()) == 1:
        return spelt.index(wanted.upper())
    if wanted.upper() in spelt:
        raise ValueError(f"{wanted} matches several entries; rename one of them")
    names = [f"{variable}{name}" for name in spelt if name]
    raise ValueError(
        f"matches no entry of the file; {did_you_mean(variable + wanted.upper(), names)}"
    )


def _spell(entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return re.sub(r"[^A-Z0-9]+", "_", name.upper()) if isinstance(name, str) else ""


def _read(value: str, annotation: Any) -> Any:
    """Return a variable's value: verbatim if the key takes a string, else parsed as TOML."""
    if _takes((annotation,), _TEXTS):
        return value
    try:
        document = tomllib.loads(f"value = {value}", parse_float=Decimal)
    except tomllib.TOMLDecodeError:
        return value
    return document["value"] if len(document) == 1 else value


def _takes(annotations: Iterable[Any], types: Collection[Any]) -> bool:
    """Return whether one of some annotations, or an alternative in it, is one of `types`."""
    for annotation in annotations:
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if annotation in types or origin in types:
            return True
        wraps = origin is typing.Annotated or origin is Union or origin is UnionType
        if wraps and _takes(parts, types):
            return True
    return False
