"""The decorator of value classes on the request path, for every package."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Decorate a value class used on the request path: slotted, and frozen for the type checker
    only.

    Freezing it at run time too costs 0.1 us a field and object, 8 us a request.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
