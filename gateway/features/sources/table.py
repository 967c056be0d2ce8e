"""A table of a SQL database in which others keep the values of entities: one row for each."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tollway.gateway.features.online.model import SourceError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")
INTEGER_DIGITS_MAX = 18  # what fits into 64 bits with room to spare


def check_name(name: str) -> None:
    """Raise ValueError if a text is no name of a table or column."""
    if _NAME.fullmatch(name) is None:
        raise ValueError("must be letters, digits and _, or schema.table; write it like users")


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    check_name(name)
    return ".".join(f'"{part}"' for part in name.split("."))


def is_integer(key: str) -> bool:
    """Return whether a key is a whole number of 64 bits, written as numbers are: 017 is no 17."""
    digits = key.removeprefix("-")
    if not (digits.isdecimal() and digits.isascii() and len(digits) <= INTEGER_DIGITS_MAX):
        return False
    return str(int(key)) == key


class SourceTable:
    """A table, its key's column and the columns of its values."""

    def __init__(
        self,
        name: str,
        key: str,
        columns: Mapping[str, str],
        *,
        integer_keys: bool = False,
        is_writable: bool = False,
    ) -> None:
        """`columns` maps the names of values to columns."""
        self.columns = dict(columns)
        self.integer_keys = integer_keys
        self.is_writable = is_writable
        self._names = tuple(columns)
        self._name, self._key = quoted(name), quoted(key)
        self._listed = ", ".join(map(quoted, [key, *columns.values()]))
        self.select = f"SELECT {self._listed} FROM {self._name} WHERE {self._key}"
        self.delete = f"DELETE FROM {self._name} WHERE {self._key}"

    def parsed(self, keys: Sequence[str]) -> dict[Any, str]:
        """Return keys as the column has them, with their texts; without those it cannot have."""
        if not self.integer_keys:
            return {key: key for key in keys if "\0" not in key}
        return {int(key): key for key in keys if is_integer(key)}

    def named(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return the values of a row by name."""
        return dict(zip(self._names, row, strict=True))

    def row(self, key: str, values: Mapping[str, Any]) -> list[Any]:
        """Return the row of an entity; SourceError if the column cannot have its key."""
        known = list(self.parsed([key]))
        if not known:
            raise SourceError(f"the column of keys cannot hold {key[:64]!r}")
        return [known[0], *(values.get(name) for name in self._names)]

    def upsert(self, marks: str) -> str:
        """Return the statement that writes a row; `marks` are its placeholders."""
        written = ", ".join(f"{c} = excluded.{c}" for c in map(quoted, self.columns.values()))
        return (
            f"INSERT INTO {self._name} ({self._listed}) VALUES ({marks}) "
            f"ON CONFLICT ({self._key}) DO UPDATE SET {written}"
        )
