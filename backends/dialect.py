"""What one backend does not take of a request: declared fields, and additions that it refused.

Servers of one protocol differ in the fields that they know. Two kinds are left out here:

    drop_fields   fields that clients send and the configuration says this backend refuses
    additions     fields that the gateway adds of its own, such as `stream_options.include_usage`;
                  a backend that refuses one with a 400 or 422 that names it, and takes the same
                  request without, is remembered, and gets it no more

Whatever a client sent and nobody declared goes to the backend as it is.
"""

import logging
from collections.abc import Sequence

from backends.json_members import has, without
from backends.types import Addition

log = logging.getLogger("tollway.dialect")

REFUSED = frozenset((400, 422))
"""Statuses by which a server says that it does not take a field."""

_READ_BYTES = 65_536  # of a refusal: error messages have some hundred bytes


class Dialect:
    """One backend's, on all routes."""

    # The mutable state: which additions it was seen to refuse.

    def __init__(self, drops: Sequence[str] = ()) -> None:
        """`drops`: dotted names of the fields that are taken out of every request."""
        self._drops = tuple(drops)
        self._refused: frozenset[str] = frozenset()

    @property
    def refused(self) -> frozenset[str]:
        """The additions that it was seen to refuse."""
        return self._refused

    @property
    def is_plain(self) -> bool:
        """Whether nothing is left out."""
        return not self._drops and not self._refused

    def unwanted(
        self, document: object, added: Sequence[Addition], without: Sequence[str] = ()
    ) -> list[str]:
        """Return the dotted names of what is left out of a request (1 us).

        Of what is `added`: the additions that it refuses, and those named `without`.
        """
        drops = [name for name in self._drops if has(document, name)]
        refused = [one for one in added if one.name in self._refused or one.name in without]
        return drops + [one.path for one in refused]

    def adopt(self, old: "Dialect") -> None:
        """Go on with what the same server was seen to refuse before its settings changed."""
        self._refused = old._refused

    def learn(self, backend: str, refused: Sequence[Addition]) -> None:
        """Remember additions that a request was refused for, and accepted without."""
        names = {one.name for one in refused} - self._refused
        if names:
            self._refused |= names
            log.warning("backend %s refuses %s: not sent to it again", backend, ", ".join(names))


def named(added: Sequence[Addition], refusal: bytes) -> list[Addition]:
    """Return the additions that the body of a refusal names."""
    said = refusal[:_READ_BYTES]
    return [one for one in added if any(word in said for word in one.words)]


def left_out(body: bytes, names: Sequence[str]) -> bytes:
    """Return a request's body without the members called `names`."""
    return without(body, names) if names else body
