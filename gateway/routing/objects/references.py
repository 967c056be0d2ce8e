"""The objects of backends: a request that names one goes to the backend that holds it.

Objects belong to the tenant that made them: to another they do not exist, as far as is known here.
"""

from tollway.gateway.routing import refusals
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.storage.object_owners import ObjectOwners, Owner


class Objects:
    """Looks up and remembers objects."""

    def __init__(self, owners: ObjectOwners) -> None:
        self._owners = owners

    async def resolve(self, inference: InferenceRequest) -> None:
        """Find the backend that holds what a request names; refuse what another tenant made.

        An object that is not known here restricts nothing: free calls look for it.
        """
        for name in inference.call.payload.refers:
            owner = await self._owners.find(name)
            if owner is None:
                continue
            if owner.tenant and owner.tenant != inference.tenant:
                raise refusals.no_object(name)
            if inference.held_by and owner.backend not in inference.held_by:
                raise refusals.held_apart(name)
            inference.held_by = frozenset((owner.backend,))

    async def owner(self, name: str) -> Owner | None:
        """Return the owner of an object; None if it is not known."""
        return await self._owners.find(name)

    def created(self, name: str, backend: str, tenant: str) -> None:
        """Remember an object that a backend has made for a tenant."""
        self._owners.note(name, Owner(backend, tenant))
