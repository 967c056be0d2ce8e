"""Contracts: constraints on a request or a reply beyond the rules of its protocol.

A contract is a list of constraints, each about one place in the document: a path, or a tensor by
its name. It is checked only on routes that have one. A tensor of 64 numbers with a range takes 8 us
on a busy machine; a small reply, which is parsed once more for it, takes 4.5 us.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

from tollway.backends.documents import shown
from tollway.backends.json_path import compile_path
from tollway.backends.sliced_json import Unread
from tollway.record import record

Kind = Literal["number", "integer", "text", "boolean", "list", "object"]
KINDS: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "text": (str,),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}


@record
class Violation:
    """The place where a document violates its contract, and how."""

    field: str
    why: str


@record
class Constraint:
    """A constraint on one place; `ConstraintConfig` in the settings says what each part means."""

    at: str = ""
    tensor: str = ""
    kind: Kind | None = None
    datatype: str | None = None
    shape: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None
    length: tuple[int, int] | None = None
    one_of: tuple[Any, ...] = ()
    optional: bool = False


class Validator:
    """Checks documents against constraints; holds no state."""

    def __init__(self, clauses: Iterable[Constraint], tensors: str) -> None:
        """`tensors`: where named tensors are, `inputs` or `outputs`. ValueError for an invalid
        path.
        """
        self._clauses: list[tuple[Constraint, Callable[[Any], Any]]] = [
            (clause, _named(tensors, clause.tensor) if clause.tensor else compile_path(clause.at))
            for clause in clauses
        ]

    def breach(self, document: Any) -> Violation | None:
        """Return the first constraint that a document violates; None if it satisfies all."""
        for clause, get in self._clauses:
            value = get(document)
            if value is None:
                why = "" if clause.optional else "is missing"
            elif isinstance(value, Unread):  # too large to be read
                why = ""
            elif clause.tensor:
                why = _of_tensor(clause, value)
            else:
                why = _of_value(clause, value)
            if why:
                return Violation(clause.tensor or clause.at, why)
        return None


def _named(tensors: str, name: str) -> Callable[[Any], Any]:
    """Return a function that finds a tensor in a document's `inputs` or `outputs` by its name."""

    def find(document: Any) -> Any:
        entries = document.get(tensors) if isinstance(document, dict) else None
        if not isinstance(entries, list):
            return None
        return next((t for t in entries if isinstance(t, dict) and t.get("name") == name), None)

    return find


def _of_tensor(clause: Constraint, tensor: dict[str, Any]) -> str:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if clause.datatype is not None and datatype != clause.datatype:
        return f"has datatype {shown(datatype)}, not {clause.datatype}"
    if clause.shape is not None and not _fits(shape, clause.shape):
        return f"has shape {shown(shape)}, not {list(clause.shape)} (-1: any)"
    data = tensor.get("data")  # None if the tensor is too large to be decoded
    is_unread = data is None or isinstance(data, Unread)
    return "" if is_unread else _of_value(clause, data)


def _fits(shape: Any, wanted: tuple[int, ...]) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) == len(wanted)
        and all(wants in (-1, has) for has, wants in zip(shape, wanted, strict=True))
    )


def _of_value(clause: Constraint, value: Any) -> str:
    if clause.kind is not None and not _is(value, clause.kind):
        return f"is {shown(value)}, which is not of type {clause.kind}"
    if clause.length is not None:
        low, high = clause.length
        size = len(value) if isinstance(value, str | list | dict) else 1
        if not low <= size <= high:
            return f"has length {size}; it must be from {low} to {high}"
    if clause.one_of and not _all_of(value, clause.one_of):
        return f"is {shown(value)}, which is not one of {list(clause.one_of)}"
    return "" if clause.range is None else _outside(value, *clause.range)


def _is(value: Any, kind: str) -> bool:
    # JSON's true is not a number, though Python's is.
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _all_of(value: Any, one_of: tuple[Any, ...]) -> bool:
    return all(_all_of(v, one_of) for v in value) if isinstance(value, list) else value in one_of


def _outside(value: Any, low: float, high: float) -> str:
    """Return what lies outside a range, for any depth of nested lists; "" if nothing does."""
    if not isinstance(value, list):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and low <= value <= high:  # NaN fails this too
            return ""
        return f"holds {shown(value)}; it must be a number from {low:g} to {high:g}"
    if value and set(map(type, value)) <= {int, float}:
        total = sum(value)  # NaN hides from min and max, not from a sum
        if low <= min(value) and max(value) <= high and total == total:  # noqa: PLR0124
            return ""
    return next((why for element in value if (why := _outside(element, low, high))), "")
