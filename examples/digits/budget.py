"""A hard budget for 40 calls, hit by 100 concurrent ones: exactly 40 are answered."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from .client import Client
from .data import Half, traffic

KEY = "digits-demo-capped"  # tollway.toml holds its hash
NAME = "capped"
MODEL = "digits-large"
REQUESTS = 100


@dataclass(frozen=True, slots=True)
class Stopped:
    """How the requests were answered, and what the ledger recorded, in nano-dollars."""

    statuses: dict[int, int]
    limit_nano: int
    spent_nano: int
    held_nano: int
    price_nano: int

    @property
    def exact(self) -> bool:
        """Whether the calls answered and charged are exactly those that the budget pays for."""
        paid = self.limit_nano // self.price_nano
        wanted = {200: paid, 402: REQUESTS - paid}
        return (
            self.statuses == wanted
            and self.spent_nano == paid * self.price_nano
            and self.held_nano == 0
        )

    def sentence(self) -> str:
        """Summarise what happened."""
        answered, refused = self.statuses.get(200, 0), self.statuses.get(402, 0)
        others = sum(self.statuses.values()) - answered - refused
        return (
            f"{REQUESTS} requests at once by a tenant with ${self.limit_nano / 1e9:g}, at "
            f"${self.price_nano / 1e9:g} each: {answered} answered, {refused} refused with 402"
            f"{f', {others} with another result' if others else ''}.\n"
            f"The ledger: {self.spent_nano:,} of {self.limit_nano:,} nano-dollars spent, "
            f"{self.held_nano:,} held: {'exact' if self.exact else 'NOT exact'}."
        )


async def spend_all(admin: Client, capped: Client, held_out: Half, price_nano: int) -> Stopped:
    """Send all requests at once as the tenant with the budget; read the ledger afterwards."""
    requests = [
        capped.ask(MODEL, image, label) for image, label in traffic(held_out, REQUESTS, seed=1)
    ]
    answers = await asyncio.gather(*requests)
    budget: dict[str, Any] = next(
        one for one in (await admin.get("/_tollway/budgets"))["budgets"] if one["name"] == NAME
    )
    return Stopped(
        statuses=dict(Counter(answer.status for answer in answers)),
        limit_nano=budget["limit_nano"],
        spent_nano=budget["spent_nano"],
        held_nano=budget["held_nano"],
        price_nano=price_nano,
    )
