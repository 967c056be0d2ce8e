"""The sticky key of a request, as a point in [0, 1): a client stays on one version of a backend.

Also the groups of keys and of tenants by which evidence is kept.
"""

from functools import lru_cache
from hashlib import blake2b

from tollway.backends.documents import header
from tollway.gateway.routing.request import InferenceRequest
from tollway.policies.evidence.comparison import CLUSTERS

SESSION = "x-session-id"
TENANT_GROUPS = 32
"""Groups of tenants. Which are together depends on the run, so nobody can choose whom to join."""
KEY_BYTES_MAX = 1024  # of a header: longer ones are cut


class StickyKey:
    """Computes the point of requests, by what is sticky and a salt.

    The tenant is always part of the key, so that no tenant decides the version of another's users.
    """

    # The mutable state is the salt, which each start of a rollout replaces.

    def __init__(self, sticky: str) -> None:
        """`sticky`: `tenant`, `session` or `header:NAME`."""
        named = SESSION if sticky == "session" else sticky.removeprefix("header:")
        self._header = None if sticky == "tenant" else named.encode()
        self.salt = b""

    def __call__(self, inference: InferenceRequest) -> float:
        """Return the point; -1 if the request has no key, so that its version is random (2 us)."""
        key = b""
        if self._header is not None:
            found = header(inference.call.headers, self._header)
            if not found:
                return -1.0
            key = found[:KEY_BYTES_MAX]
        who = (inference.caller or inference.tenant).encode()
        return point(self.salt, who, key)


def point(*parts: bytes) -> float:
    """Return a hash of some parts, uniform in [0, 1)."""
    digest = blake2b(b"\0".join(parts), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def cluster(unit: float, decision: str) -> int:
    """Return the group of keys of a request; without a key, requests are independent."""
    if unit < 0.0:
        unit = point(decision.encode())
    # Not the leading digits: those decide the version.
    return int(unit * (1 << 40)) % CLUSTERS


@lru_cache(maxsize=4096)
def tenant_group(salt: str, tenant: str) -> int:
    """Return the group of a tenant in a run of a rollout; all processes agree on it."""
    return int(point(salt.encode(), b"tenant", tenant.encode()) * TENANT_GROUPS)
