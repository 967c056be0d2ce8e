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
from dataclasses import dataclass, field

from tollway.backends.json_members import Edits, edited, has
from tollway.backends.output import ANOTHER, OutputLimit
from tollway.backends.types import Addition, Call, Payload

log = logging.getLogger(__name__)

REFUSED = frozenset((400, 422))
"""Statuses with which a server reports that it does not accept a field."""

_READ_BYTES = 65_536  # of a refusal: error messages have some hundred bytes


@dataclass(slots=True)
class Refusals:
    """What a backend has refused: the state of its dialect.

    `additions`: names of fields that the gateway added. `limit_field`: the field for an output
    limit that was accepted after another was refused. `output_max`: the largest output limit that
    may be inserted, by the tenant for which a larger one was refused: what was refused may have
    depended on its prompt.
    """

    additions: frozenset[str] = frozenset()
    limit_field: str | None = None
    output_max: dict[str, int] = field(default_factory=dict)


class Dialect:
    """The dialect of one backend, on all routes."""

    def __init__(
        self,
        drops: Sequence[str] = (),
        limit_field: str | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        """`drops`: dotted names of the fields that are removed from every request.

        `limit_field`: the name of the output limit in chat requests to this backend. `refusals`:
        the state to go on from.
        """
        self._drops = tuple(drops)
        self._limit_field = limit_field
        self._refusals = refusals or Refusals()

    @property
    def is_plain(self) -> bool:
        """Whether nothing is removed."""
        return not (self._drops or self._refusals.additions)

    def output_max(self, tenant: str) -> int | None:
        """Return the largest output limit to insert for a tenant; None if none was refused."""
        return self._refusals.output_max.get(tenant)

    @property
    def drops(self) -> tuple[str, ...]:
        """The fields that are removed from every request."""
        return self._drops

    def limit_field(self, usual: str) -> str:
        """Return the field for an output limit; `usual` is its name in the protocol."""
        if usual not in ANOTHER:
            return usual  # only chat requests have two names for it
        field = self._refusals.limit_field or self._limit_field or usual
        return ANOTHER[field] if field in self._drops and field in ANOTHER else field

    def learn_field(self, backend: str, field: str) -> None:
        """Remember the field with which a request was accepted, after another was refused."""
        if field != (self._refusals.limit_field or self._limit_field):
            self._refusals.limit_field = field
            log.warning("backend %s takes %s, and is sent no other limit", backend, field)

    def learn_most(self, backend: str, tokens: int, tenant: str) -> None:
        """Remember a limit that was accepted after a larger one was refused."""
        known = self.output_max(tenant)
        if known is None or tokens < known:
            self._refusals.output_max[tenant] = tokens
            log.warning(
                "backend %s refused a larger limit of output than %d tokens; declare its "
                "max_output_tokens",
                backend,
                tokens,
            )

    @property
    def refused(self) -> frozenset[str]:
        """The additions that the backend has refused."""
        return self._refusals.additions

    def unwanted(
        self, document: object, added: Sequence[Addition], without: Sequence[str] = ()
    ) -> list[str]:
        """Return the dotted names of the fields to remove from a request (1 us).

        Of the fields in `added`: the additions that the backend refuses, and those named `without`.
        """
        drops = [name for name in self._drops if has(document, name)]
        refused = [
            one
            for one in added
            if one.name in self.refused or one.name in without or one.path in self._drops
        ]
        return drops + [one.path for one in refused]

    def learn(self, backend: str, refused: Sequence[Addition]) -> None:
        """Remember additions that caused a refusal: without them the request was accepted."""
        names = {one.name for one in refused} - self.refused
        if names:
            self._refusals.additions |= names
            log.warning("backend %s refuses %s: not sent to it again", backend, ", ".join(names))


def named(added: Sequence[Addition], refusal: bytes) -> list[Addition]:
    """Return the additions that the body of a refusal names."""
    text = refusal[:_READ_BYTES]
    return [one for one in added if any(word in text for word in one.words)]


def limited(limit: OutputLimit) -> Edits:
    """Return the edits that write an output limit."""
    return dict.fromkeys(limit.present or (limit.field,), limit.tokens)


def rewritten(call: Call, payload: Payload, edits: Edits) -> bytes:
    """Return a request's body with edits of its document or form."""
    if payload.form is not None:
        return payload.form.edited(call.body, edits)
    return edited(call.body, edits, payload.data, call.pieces, payload.once)
