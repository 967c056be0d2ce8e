"""Configuration errors: where the problem is, what it is, and what to write instead."""

import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

Location = tuple[str | int, ...]
"""Keys and indices from the root of the document: ("routes", 0, "accuracy_floor")."""

_SECRET = re.compile(r"key|secret|password|pepper|token|hash", re.IGNORECASE)
_SECRET_TABLES = frozenset(
    {"auth", "headers", "proxy"}
)  # keys are sometimes pasted here by mistake
# Of an address, even if it is not a valid one. No other setting contains an @.
_USERINFO = re.compile(r'[^/@\s"]*@')
_QUERY = re.compile(r'(://[^\s"?#]*)[?#][^\s"]*')
_SHOWN_CHARS_MAX = 80  # enough to find the value in the file


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem to fix: its place, the value there (`""` if not shown) and the reason.

    `source` is the file's name, or "environment", in which case `key` is the variable's name.
    """

    source: str
    key: str
    why: str
    value: str = ""

    def document(self) -> dict[str, str]:
        """Return the problem as JSON types."""
        return {"source": self.source, "key": self.key, "value": self.value, "why": self.why}

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.source, self.key) if part)
        return f"{place} = {self.value}: {self.why}" if self.value else f"{place}: {self.why}"


class ConfigError(Exception):
    """A configuration that was rejected; `problems` lists everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class KeyProblem(ValueError):  # noqa: N818 - reads as what it says
    """A problem with one key, found by a check of the whole table."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def did_you_mean(word: str, words: Iterable[str], *, otherwise: str = "") -> str:
    """Return "did you mean 'X'?"; without a close match, `otherwise` or the known names."""
    known = {known.lower(): known for known in sorted(words)}
    near = difflib.get_close_matches(word.lower(), known, n=1)
    if near:
        return f"did you mean {known[near[0]]!r}?"
    return otherwise or f"known names: {', '.join(known.values()) or 'none'}"


def key_of(location: Sequence[str | int]) -> str:
    """Return a location in the notation of messages: `routes[0].accuracy_floor`."""
    key = ""
    for step in location:
        key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else step
    return key


def show(value: Any, location: Sequence[str | int] = ()) -> str:
    """Return a value in TOML syntax, shortened, with secrets hidden; "" for a table."""
    if value is None or isinstance(value, (dict, BaseModel)):
        return ""
    names = [step for step in location if isinstance(step, str)]
    secret = names and (_SECRET.search(names[-1]) or not _SECRET_TABLES.isdisjoint(names))
    if isinstance(value, SecretStr) or secret:
        return "(hidden)"
    text = (
        str(value).lower().replace("infinity", "inf")
        if isinstance(value, (bool, int, float, Decimal))
        else json.dumps(value, default=str, ensure_ascii=False)
    )
    text = _QUERY.sub(r"\1?(hidden)", _USERINFO.sub("(hidden)@", text))
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 3] + "..."


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model class in an annotation (`M`, `M | None`, `tuple[M, ...]`), or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in typing.get_args(annotation):
        inner = model_in(part)
        if inner is not None:
            return inner
    return None


def _field(model: type[BaseModel], location: Location) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the last model on the path to a location, and the field there (None if unknown)."""
    field: FieldInfo | None = None
    for step in location:
        if isinstance(step, int):
            continue
        if field is not None:
            inner = model_in(field.annotation)
            if inner is None:
                return model, field
            model = inner
        field = model.model_fields.get(step)
        if field is None:
            return model, None
    return model, field


def example(field: FieldInfo) -> str:
    """Return a field's first example in TOML syntax; "" if it has none."""
    if not field.examples:
        return ""
    first = field.examples[0]
    inline_table = isinstance(first, str) and first.startswith("{")
    return first if inline_table else show(first)


def _instead(field: FieldInfo | None) -> str:
    """Return a suggestion of what to write: the example, or else the default."""
    if field is None:
        return ""
    plain = isinstance(field.default, (str, int, float)) and field.default != ""
    like = example(field) or (show(field.default) if plain else "")
    return f"; write it like {like}" if like else ""


def _one_of(error: Any) -> str:
    words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
    return f"must be one of {', '.join(words)}; {did_you_mean(str(error['input']), words)}"


# Messages for pydantic's error types.
_SAID = {
    "missing": "is missing",
    "less_than_equal": "must be at most {le:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be more than {gt:g}",
    "too_short": "must not be empty",
    "too_long": "has more than {max_length} entries",
    "string_pattern_mismatch": "must match {pattern}",
    "decimal_max_places": "has more than 9 decimals; the smallest amount is a nano-dollar",
    "finite_number": "must be a finite number",
}


def _why(error: Any, model: type[BaseModel], location: Location) -> str:
    table, field = _field(model, location)
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key; {did_you_mean(str(location[-1]), table.model_fields)}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "literal_error":
            return _one_of(error)
        case "too_short" if isinstance(error["input"], str):
            return f"must have at least {error['ctx']['min_length']} characters"
    message = str(error["msg"]).removeprefix("Input ").removeprefix("String ")
    text = _SAID.get(error["type"])
    why = text.format(**error.get("ctx", {})) if text else message[:1].lower() + message[1:]
    return f"{why}{_instead(field)}"


def of_validation(
    error: ValidationError, model: type[BaseModel]
) -> Iterator[tuple[Location, str, str]]:
    """Yield (location, displayed value, reason) for each error in a ValidationError."""
    for detail in error.errors(include_url=False):
        text = isinstance(detail["input"], str)  # of a secret, whose characters are counted
        if detail["type"] == "too_short" and detail["input"] and not text:
            continue  # it counts valid entries only, and the invalid ones are reported already
        if detail["type"] == "default_factory_not_called":
            continue  # another key of the table is wrong and is reported
        location: Location = tuple(detail["loc"])
        value, why = detail["input"], _why(detail, model, location)
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, KeyProblem):
            location = (*location, cause.key)
            value = value.get(cause.key) if isinstance(value, dict) else None
        if detail["type"] in {"extra_forbidden", "missing"}:
            # The value of an unknown key is hidden: it may be a secret under a misspelt name.
            value = None
        yield location, show(value, location), why
