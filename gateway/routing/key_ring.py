"""Key rings: several keys for one backend, used in turn by their weights.

A provider limits the rate of each key, so a key that was answered with 429 rests while the others
go on, and a refused key is out of service by itself. Turns are smooth weighted round robin, as in
nginx: each key gains its weight, and the richest one pays for all, so that 3 : 1 is a a b a.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tollway.gateway.routing.health.rest import Rest
from tollway.gateway.security.credentials import Credential


@dataclass(slots=True)
class Key:
    """A key, its share of the calls among those that may be used, and its rest after a 429."""

    # The mutable state is the credit in the order of turns, and the rest.
    credential: Credential
    weight: int
    rest: Rest = field(default_factory=Rest)
    credit: int = 0

    def allows(self, now_s: float) -> bool:
        """Return whether the key may be used now."""
        return now_s >= self.rest.until_s and self.credential.allows(now_s)


def pick(keys: Sequence[Key]) -> int:
    """Return the place of the key whose turn it is, of at least one (1 us for two)."""
    total = 0
    for key in keys:
        key.credit += key.weight
        total += key.weight
    place = max(range(len(keys)), key=lambda at: keys[at].credit)
    keys[place].credit -= total
    return place
