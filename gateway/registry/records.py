"""Records: which version each backend serves, as the gateway last knew; kept in a file.

A gateway that starts while the registry is down serves what it served before.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.settings.registry.model import ModelConfig
from tollway.gateway.settings.registry.template import BadVersion, Place, place
from tollway.gateway.storage import snapshot_file

NAME = "registry.json"
"""The file's name in the state directory."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a gateway has done of a model.

    `champion`: the version that the backend serves; "" for what the configuration says.
    `challenger`: the version that is tried, by the rollout's `run`. `confirmed`: the registry has
    been told that the challenger is champion. `newest`: the newest version that was considered.
    """

    champion: str = ""
    challenger: str = ""
    run: str = ""
    confirmed: bool = False
    newest: str = ""


class Records:
    """The records of all models, by name."""

    # The mutable state is the table, and the file that has the same.

    def __init__(self, folder: Path) -> None:
        """`folder` is the state directory. Raises ValueError if its file is damaged."""
        self._path = folder / NAME
        self._table = read(self._path)
        self._lock = threading.Lock()  # models are written from several threads

    def get(self, name: str) -> Record:
        """Return the record of a model."""
        return self._table.get(name, Record())

    def fresh(self, name: str) -> Record:
        """Return the record of a model as another process of the gateway has written it last."""
        return read(self._path).get(name, Record())

    def put(self, name: str, record: Record) -> None:
        """Write a record. Raises OSError, with nothing changed, if the disk refuses it."""
        with self._lock:
            table = {**self._table, name: record}
            document = {name: asdict(one) for name, one in table.items()}
            text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
            snapshot_file.write(self._path, text + b"\n")
            self._table = table


def read(path: Path) -> dict[str, Record]:
    """Return the records in a file; none if it does not exist. ValueError if it is damaged."""
    try:
        document = orjson.loads(path.read_bytes())
        return {str(name): _record(one) for name, one in document.items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, TypeError, orjson.JSONDecodeError) as exc:
        why = f"{path} is damaged ({exc}); remove it, and the registry's aliases are read again"
        raise ValueError(why) from exc


def _record(one: Any) -> Record:
    if not isinstance(one, dict):
        raise TypeError("a record is not an object")
    return Record(**{field.name: one[field.name] for field in fields(Record) if field.name in one})


def place_of(model: ModelConfig, version: str) -> Place:
    """Return where a version is served. Raises BadVersion if the template cannot be filled."""
    return place(model.name, version, url=model.url, model=model.model, ports=model.ports)


def versions(
    models: Iterable[ModelConfig], rollouts: Mapping[str, str], folder: Path
) -> dict[str, Mapping[str, str]]:
    """Return the `url` and `model` of each backend, and of each rollout's candidate, by name.

    `rollouts` has the rollout of each model that has one; `folder` is the state directory.
    Raises ConfigError if the file is damaged, or a version no longer fits the template.
    """
    path = folder / NAME
    found: dict[str, Mapping[str, str]] = {}
    try:
        records = read(path)
        for model in models:
            record = records.get(model.name, Record())
            if record.champion:
                found[model.backend] = _keys(place_of(model, record.champion))
            if record.challenger and model.name in rollouts:
                found[rollouts[model.name]] = _keys(place_of(model, record.challenger))
    except BadVersion as exc:
        why = f"the version that {path} has of it does not fit url, model and ports: {exc}"
        raise ConfigError([Problem("", "models", why)]) from exc
    except (OSError, ValueError) as exc:
        raise ConfigError([Problem("", "state.dir", str(exc))]) from exc
    return found


def _keys(found: Place) -> dict[str, str]:
    keys = {"url": found.url, "model": found.model}
    return {key: value for key, value in keys.items() if value is not None}
