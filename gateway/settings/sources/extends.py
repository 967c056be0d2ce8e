"""Merges a configuration with the one that it extends: `extends = "tollway.toml"`.

The file that extends gives what differs, such as a staging environment's limits and ledger.

    in the file                      effect on what it extends
    a key of a table                 replaces that key: `limit_usd` in a budget, `url` in `[ledger]`
    a table inside one (`price`)     replaces the whole inner table: two prices never add up
    an entry of a list, by its name  replaces the keys that it has; a new name adds an entry
    an empty list (`webhooks = []`)  removes all entries

Both files are in one folder, because relative paths in both are relative to it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import ConfigError, Problem, show
from tollway.gateway.settings.sources.store_identity import ledger_identity, path_identity
from tollway.gateway.settings.storage import JournalConfig, LedgerConfig, StateConfig

Raw = dict[str, Any]
DEPTH_MAX = 4  # files: a base, a region, an environment, and one to spare
OWN: dict[tuple[str, str], type[ConfigTable]] = {
    ("ledger", "url"): LedgerConfig,
    ("journal", "dir"): JournalConfig,
    ("state", "dir"): StateConfig,
}
"""What an environment may not share with one that it extends, and the tables, for defaults."""


def resolve(raw: Raw, source: str, read: Callable[[str], Raw]) -> tuple[Raw, list[Raw]]:
    """Return a document merged with those that it extends, and these, nearest first.

    `read(name)` returns the document of a file in the same folder. Raises ConfigError if a name is
    not one, or files extend one another in a circle.
    """
    bases: list[Raw] = []
    seen, at, now = [source], source, raw
    while (name := now.get("extends")) is not None:
        if not (isinstance(name, str) and name and name.isprintable() and Path(name).name == name):
            why = "must be the name of a file in the same folder; write it like tollway.toml"
            raise ConfigError([Problem(at, "extends", why, show(name))])
        if name in seen or len(seen) == DEPTH_MAX:
            chain = " -> ".join([*seen, name])
            why = f"goes in a circle or through more than {DEPTH_MAX} files: {chain}; remove one"
            raise ConfigError([Problem(at, "extends", why, show(name))])
        now, at = read(name), name
        seen.append(name)
        bases.append(now)
    merged: Raw = {}
    for document in [*reversed(bases), raw]:
        merged = merge(merged, document)
    return merged, bases


def merge(base: Raw, over: Raw) -> Raw:
    """Return `base` with what `over` says; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        known = base.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            merged[key] = {**known, **value}
        elif value and known and _is_named(value) and _is_named(known):
            merged[key] = _merged_entries(known, value)
        else:
            merged[key] = value
    return merged


def _merged_entries(base: list[Raw], over: list[Raw]) -> list[Raw]:
    """Return the entries of both lists. Two of one name in one list stay two, and are reported."""
    changes: dict[str, Raw] = {}
    more: list[Raw] = []
    names = {entry["name"] for entry in base}
    for entry in over:
        if entry["name"] in names and entry["name"] not in changes:
            changes[entry["name"]] = entry
        else:
            more.append(entry)
    return [{**entry, **changes.get(entry["name"], {})} for entry in base] + more


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in value
    )


def shared(raw: Raw, bases: list[Raw], folder: Path) -> Iterator[tuple[tuple[str, str], str, str]]:
    """Yield each store that an environment shares with another that it extends, and what to do.

    A staging gateway on production's ledger would spend production's budgets. `raw` is the merged
    document, with the overrides of the process' environment; relative paths start at `folder`.
    """
    base: Raw = {}
    others: list[Raw] = []
    for document in reversed(bases):
        base = merge(base, document)
        if raw.get("environment") != base.get("environment"):
            others.append(base)
    for table, key in OWN:
        value = _value(raw, table, key)
        own = _identity(table, value, folder)
        if own is not None and any(
            own == _identity(table, _value(other, table, key), folder) for other in others
        ):
            name = raw.get("environment")
            why = (
                f"is that of the configuration which it extends; an environment has its own: "
                f"write it like {key} = {_example(table, str(name))}"
            )
            yield (table, key), show(value), why


def _value(document: Raw, table: str, key: str) -> Any:
    inner = document.get(table)
    found = inner.get(key) if isinstance(inner, dict) else None
    return OWN[table, key].model_fields[key].default if found is None else found


def _identity(table: str, value: Any, folder: Path) -> object:
    if table == "ledger":
        return ledger_identity(value, folder)
    return path_identity(value, folder)


def _example(table: str, name: str) -> str:
    if table == "ledger":
        return show(f"sqlite:///{name}.db")
    return show(f".tollway/{name}/{table}")
