"""Tokens by tenant: what each tenant may still spend of something scarce, such as retries.

Each tenant has its own bucket, which starts full. So a tenant whose requests all fail, or are all
slow, spends its own tokens and nobody else's.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class TenantTokens:
    """Buckets of at most `most` tokens."""

    # The mutable state is the buckets that are not full. Tenants come from the configuration.
    most: float
    left: dict[str, float] = field(default_factory=dict)

    def of(self, tenant: str) -> float:
        """Return a tenant's tokens."""
        return self.left.get(tenant, self.most)

    def earn(self, tenant: str, share: float) -> None:
        """Add a share of a token (0.1 us if the bucket is full)."""
        if tenant in self.left:
            left = self.left[tenant] + share
            if left < self.most:
                self.left[tenant] = left
            else:
                del self.left[tenant]

    def spend(self, tenant: str) -> None:
        """Take one token."""
        self.left[tenant] = self.of(tenant) - 1.0
