"""The values a policy sees and returns, and the port it implements.

A policy is pure: it knows no clock, no file, no event loop, and is deterministic under the seed of
the generator it is handed. It never remembers its last choice: everything that learning needs is in
the `Choice`, so feedback may come hours later, out of order, or never.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, TypeVar, dataclass_transform

from tollway.policies.evidence.drift import Change

ACCEPT = "accept"
"""The arm of a cascade's later stage that keeps the reply in hand; it costs nothing more."""


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a value that the path creates: slotted, and frozen for the type checker alone.

    Freezing it at run time too costs 0.1 us a field and object, 8 us a request.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@record
class Context:
    """The features of a request.

    `dense` holds numbers, each finite and of the order of 1, the same length for every request of a
    route. `sparse` holds hashed features such as words: (index in [0, 2**18), finite value), any
    length. In a cascade's later stage `reply` holds what the reply in hand says of itself (top
    probability, margin, entropy, ...) and `held` names the arm that gave it. `scopes` are
    the budgets that bind this request and not all of its route's: no feature, but they pace it.
    Nor is `reached` a feature: how many times likelier the learned policy alone would have come to
    this stage, and `reached_most`, the most that this could have been (`value.onward`).
    """

    dense: tuple[float, ...]
    sparse: tuple[tuple[int, float], ...] = ()
    reply: tuple[float, ...] = ()
    held: str = ""
    scopes: tuple[str, ...] = ()
    reached: float = 1.0
    reached_most: float = 1.0


@record
class Arm:
    """A backend as it is offered for one request.

    `cost_usd` is the expected cost of this request there, at today's price; `prior_quality` what
    its operator declares in [0, 1], None where nothing is declared.
    """

    name: str
    cost_usd: float
    prior_quality: float | None = None


@record
class Choice:
    """What a policy was offered, the probabilities that were drawn from, and the arm drawn.

    `pmf` is final: after every mask and cap. `quality_hat` are the head's predictions in [0, 1];
    `shadow_price` is lambda in quality per dollar (0: money is no object). `shadow` is the
    distribution that a learned policy wanted where it was held back, () where it was not, and
    `guarded_by` the fixed arm of a guard. `reached` and `reached_most` are the context's.
    """

    arms: tuple[str, ...]
    pmf: tuple[float, ...]
    index: int
    quality_hat: tuple[float, ...]
    cost_hat_usd: tuple[float, ...]
    shadow_price: float
    reason: str
    version: int
    shadow: tuple[float, ...] = ()
    reached: float = 1.0
    guarded_by: str = ""
    scopes: tuple[str, ...] = ()
    reached_most: float = 1.0

    @property
    def arm(self) -> str:
        """The arm that was drawn."""
        return self.arms[self.index]

    @property
    def propensity(self) -> float:
        """The probability with which it was drawn."""
        return self.pmf[self.index]


@dataclass(frozen=True, slots=True)
class Objective:
    """What a route wants of its policy.

    `kind` is `max_quality` (the best that the allowance pays for), `min_cost` (the cheapest above
    `floor`) or `value` (`value_per_correct_usd` * quality - cost). `floor` is a mean quality in
    [0, 1]; `baseline` the arm that is declared to hold it.
    """

    kind: str = "max_quality"
    floor: float | None = None
    value_per_correct_usd: float | None = None
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a policy itself that its operator should hear of.

    `kind` is of a closed set: `floor_released`, `floor_refuted`, `floor_infeasible`,
    `floor_feasible`, `guard_took_over`, `guard_handed_back`.
    """

    kind: str
    text: str
    figures: dict[str, float]


class Policy(Protocol):
    """Chooses an arm for a context, and learns what that was worth."""

    version: int

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms` (at least one). `floor` may be stricter than the objective's."""

    def learn(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        quality: float,
        weight: float = 1.0,
        *,
        belief: float = 1.0,
    ) -> None:
        """Learn that `arm` gave `quality` in [0, 1].

        `weight`: for how many answers the label stands, 1 in the mean; not 1 where some were
        likelier to be judged than others. `belief`: how far the label is believed, from above 0 to
        1, where its teller's labels may count in part only (`influence`).

        `arm` is `choice.arm`, or in a cascade also another whose answer was seen and could be
        scored (such as ACCEPT, when a true label scores the cheap reply that was passed over).
        """

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Learn that a choice has cost `cost_usd` in the end."""

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Say what the budgets allow per request from now on; None where no budget binds.

        `scope` names a budget that binds only the requests whose contexts name it.
        """

    def reprice(self, arm: str, ratio: float) -> None:
        """Say that the price of an arm has become `ratio` times what it was."""

    def resolve_due(self) -> bool:
        """Say whether `resolve` should be called (every few dozen requests, and after events)."""

    def resolve(self) -> None:
        """Compute the multipliers anew from the recent contexts: a millisecond, off the path."""

    def drain(self) -> list[Change | Notice]:
        """Return what was noticed since it was last asked: changes of arms, and of itself."""

    def figures(self) -> dict[str, float]:
        """Return what the policy tells of itself, by name; what it does not have it leaves out.

        `shadow_price` (quality per dollar), `explored_usd`, `allowance_usd`, `accuracy_floor`,
        `accuracy_estimate`, `floor_guarded` (0 or 1), `floor_lower_bound`, `floor_share`,
        `guard_active` (0 or 1), `guard_gain`, `guard_gain_lower_bound`.
        """

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""

    def load(self, state: bytes) -> None:
        """Take a saved state; ValueError, and no change, where it is damaged or of another kind."""

    def adopt(self, state: bytes) -> None:
        """Take what another process has learned, as `load`, and keep one's own pace and spending.

        For processes that share one policy: one learns, the others adopt.
        """
