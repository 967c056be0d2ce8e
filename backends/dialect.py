"""What a backend does not accept in a request: declared fields, and additions that it refused.

Servers of one protocol differ in the fields they accept. Two kinds of fields are removed here:

    drop_fields   fields that clients send and that the configuration lists for this backend
    additions     fields that the gateway itself adds, such as `stream_options.include_usage`; if a
                  backend refuses one with a 400 or 422 that names it, and accepts the same request
                  without it, this is remembered, and the field is no longer sent

All other fields that a client sends are forwarded unchanged.
"""

import logging
from collections.abc import Sequence

from tollway.backends.json_members import has, with_first, with_number, without
from tollway.backends.output import ANOTHER, OutputLimit
from tollway.backends.types import Addition

log = logging.getLogger("tollway.dialect")

REFUSED = frozenset((400, 422))
"""Statuses with which a server reports that it does not accept a field."""

_READ_BYTES = 65_536  # of a refusal: error messages have some hundred bytes


class Dialect:
    """The dialect of one backend, on all routes."""

    # The mutable state: the additions that the backend has refused.

    def __init__(self, drops: Sequence[str] = (), limit_field: str | None = None) -> None:
        """`drops`: dotted names of the fields that are removed from every request.

        `limit_field`: the name of the output limit in chat requests to this backend.
        """
        self._drops = tuple(drops)
        self._refused: frozenset[str] = frozenset()
        self._limit_field = limit_field
        self.is_plain = not self._drops
        """Whether nothing is removed."""
        self.output_max: int | None = None
        """The largest output limit that may be inserted, once a larger one was refused."""

    @property
    def drops(self) -> tuple[str, ...]:
        """The fields that are removed from every request."""
        return self._drops

    def limit_field(self, usual: str) -> str:
        """Return the field for an output limit; `usual` is its name in the protocol."""
        if usual not in ANOTHER:
            return usual  # only chat requests have two names for it
        field = self._limit_field or usual
        return ANOTHER[field] if field in self._drops and field in ANOTHER else field

    def learn_field(self, backend: str, field: str) -> None:
        """Remember the field with which a request was accepted, after another was refused."""
        if field != self._limit_field:
            self._limit_field = field
            log.warning("backend %s takes %s, and is sent no other limit", backend, field)

    def learn_most(self, backend: str, tokens: int) -> None:
        """Remember a limit that was accepted after a larger one was refused."""
        if self.output_max is None or tokens < self.output_max:
            self.output_max = tokens
            log.warning(
                "backend %s refused a larger limit of output than %d tokens; declare its "
                "max_output_tokens",
                backend,
                tokens,
            )

    @property
    def refused(self) -> frozenset[str]:
        """The additions that the backend has refused."""
        return self._refused

    def unwanted(
        self, document: object, added: Sequence[Addition], without: Sequence[str] = ()
    ) -> list[str]:
        """Return the dotted names of the fields to remove from a request (1 us).

        Of the fields in `added`: the additions that the backend refuses, and those named `without`.
        """
        drops = [name for name in self._drops if has(document, name)]
        refused = [one for one in added if one.name in self._refused or one.name in without]
        return drops + [one.path for one in refused]

    def adopt(self, old: "Dialect") -> None:
        """Take over the refusals of the same server from before its settings changed."""
        self._refused = old._refused
        self.is_plain = not self._drops and not self._refused

    def learn(self, backend: str, refused: Sequence[Addition]) -> None:
        """Remember additions that caused a refusal: without them the request was accepted."""
        names = {one.name for one in refused} - self._refused
        if names:
            self._refused |= names
            self.is_plain = False
            log.warning("backend %s refuses %s: not sent to it again", backend, ", ".join(names))


def named(added: Sequence[Addition], refusal: bytes) -> list[Addition]:
    """Return the additions that the body of a refusal names."""
    said = refusal[:_READ_BYTES]
    return [one for one in added if any(word in said for word in one.words)]


def left_out(body: bytes, names: Sequence[str]) -> bytes:
    """Return a request's body without the members called `names`."""
    return without(body, names) if names else body


def limited(body: bytes, limit: OutputLimit) -> bytes:
    """Return a request's body with an output limit."""
    if limit.present:
        return with_number(body, limit.present, limit.tokens)
    return with_first(body, limit.field, limit.tokens)
