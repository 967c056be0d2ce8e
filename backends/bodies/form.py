"""A form: the fields of a body in several parts, and where in the body they stand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form: its name, and the offsets of its head, its content and its end."""

    name: str
    start: int
    content: int
    end: int


@dataclass(frozen=True, slots=True)
class Form:
    """A form.

    `fields` maps names to texts, to the size of a file as `{"bytes": N}`, or to a list of these.
    `mark` is what stands between two parts, but for the end of its line.
    """

    fields: dict[str, Any]
    parts: tuple[Part, ...]
    mark: bytes

    def edited(self, body: bytes, edits: Mapping[str, Any]) -> bytes:
        """Return the body with other values of the fields that it has; None removes a field.

        A form keeps at least one field.
        """
        view, between = memoryview(body), self.mark + b"\r\n"
        pieces: list[bytes | memoryview] = []
        for one in self.parts:
            if edits.get(one.name, "") is None:
                continue
            pieces.append(between if pieces else view[: self.parts[0].start])
            value = edits.get(one.name)
            pieces.append(view[one.start : one.end if value is None else one.content])
            if value is not None:
                pieces.append(str(value).encode())
        if not pieces:
            return body
        return b"".join((*pieces, view[self.parts[-1].end :]))  # the body is copied once
