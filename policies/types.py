"""The values a policy sees and returns, and the port it implements.

A policy is pure: it uses no clock, no file and no event loop, and is deterministic under the seed
of the generator it is given. It never remembers its last choice: everything that learning needs is
in the `Choice`, so feedback may arrive hours later, out of order, or never.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, runtime_checkable

from tollway.policies.evidence.drift import Change
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.record import record

ACCEPT = "accept"
"""The arm of a cascade's later stage that keeps the current reply; it costs nothing more."""


WARM_UP = "warm_up"
"""The reason of a choice that no policy made: all arms were asked, to start a policy. It teaches
what the arms are worth, and says nothing of how good the policy's own choices are."""


EMBEDDING = 64
"""How many numbers an embedding of a text has; they come last in a context's dense features."""


@record
class Context:
    """The features of a request.

    `dense` holds numbers, each finite and of the order of 1, the same length for every request of a
    route. `sparse` holds hashed features such as words: (index in [0, 2**18), finite value), any
    length. In a cascade's later stage `reply` holds features of the current reply (top probability,
    margin, entropy, ...) and `held` names the arm that gave it.

    Five fields are not features. `scopes` are the budgets that apply to this request but not to
    its whole route; they pace it. `reached` is how many times likelier the learned policy alone
    would have come to this stage, and `reached_most` is the maximum this could have been
    (`off_policy.onward`). `unit` in [0, 1) is the hash of the key by which a rollout keeps a client
    on one version (`split`); below 0 if there is none. `fresh`: that the kept answer is not given
    was drawn already, with its probability in the choice; it is not drawn for again.
    """

    dense: tuple[float, ...]
    sparse: tuple[tuple[int, float], ...] = ()
    reply: tuple[float, ...] = ()
    held: str = ""
    scopes: tuple[str, ...] = ()
    reached: float = 1.0
    reached_most: float = 1.0
    unit: float = -1.0
    fresh: bool = False


@record
class Arm:
    """A backend as it is offered for one request.

    `cost_usd` is the expected cost of this request there, at today's price; `prior_quality` is the
    quality its operator declares in [0, 1], or None.
    """

    name: str
    cost_usd: float
    prior_quality: float | None = None


@record
class Choice:
    """The arms offered to a policy, the probabilities that were drawn from, and the arm drawn.

    `pmf` is final: after every mask and cap. `quality_hat` are the regressor's predictions in [0,
    1]; `shadow_price` is lambda in quality per dollar (0: cost does not matter). `shadow` is the
    distribution of a learned policy that was held back, () where it was not held back, and
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
    """The objective of a route's policy.

    `kind` is `max_quality` (the best that the allowance pays for), `min_cost` (the cheapest above
    `floor`) or `value` (`value_per_correct_usd` * quality - cost). `floor` is a mean quality in [0,
    1]; `baseline` is the arm that is declared to hold it.
    """

    kind: str = "max_quality"
    floor: float | None = None
    value_per_correct_usd: float | None = None
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a policy itself that its operator should know.

    `kind` is of a closed set: `floor_released`, `floor_refuted`, `floor_infeasible`,
    `floor_feasible`, `guard_took_over`, `guard_handed_back`.
    """

    kind: str
    text: str
    figures: dict[str, float]


@runtime_checkable
class LearnsSignals(Protocol):
    """A policy that also learns from signals, which score answers without knowing the truth."""

    def learn_signal(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        estimate: SignalEstimate,
        weight: float = 1.0,
    ) -> None:
        """Learn what signals say of the answer of `arm`, in proportion to the belief in them.

        Floors are not certified by it alone: see `rectify`. `weight`: as in `Policy.learn`.
        """

    def rectify(
        self, choice: Choice, arm: str, quality: float, predicted: float, weight: float = 1.0
    ) -> None:
        """Use the true quality of an answer whose predicted quality was learned before.

        Predictions and their errors together bound the quality of all answers, with fewer labels
        than without predictions (`prediction_powered`). The label itself is learned by `learn`.
        """


class Policy(Protocol):
    """Chooses an arm for a context, and learns from the quality of the reply."""

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

        `weight`: the number of answers the label stands for, 1 in the mean; it is not 1 where some
        answers were likelier to be labelled than others. `belief`: how far the label is trusted,
        from above 0 to 1, where the labels of its sender may count only in part (`influence`).

        `arm` is `choice.arm`, or in a cascade also another arm that answered and could be scored
        (such as ACCEPT, when a true label scores the cheap reply that was not accepted).
        """

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Record the final cost `cost_usd` of a choice."""

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Set what the budgets allow per request from now on; None where no budget binds.

        `scope` names a budget that binds only the requests with this name in their contexts'
        scopes.
        """

    def reprice(self, arm: str, ratio: float) -> None:
        """Scale an arm's costs by `ratio` after a price change."""

    def resolve_due(self) -> bool:
        """Return whether to call `resolve` (every few dozen requests, and after events)."""

    def resolve(self) -> None:
        """Solve the multipliers again over the recent contexts: a millisecond, off the request
        path.
        """

    def drain(self) -> list[Change | Notice]:
        """Return the changes of arms and the notices on the policy itself since the last call."""

    def figures(self) -> dict[str, float]:
        """Return the policy's figures by name, without those it does not have.

        `shadow_price` (quality per dollar), `explored_usd`, `allowance_usd`, `accuracy_floor`,
        `accuracy_estimate`, `floor_guarded` (0 or 1), `floor_lower_bound`, `floor_share`,
        `guard_active` (0 or 1), `guard_gain`, `guard_gain_lower_bound`, `embedding_share`,
        `embedding_gain`, `embedding_gain_lower_bound`.
        """

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""

    def load(self, state: bytes) -> None:
        """Load a saved state; ValueError, and no change, if it is damaged or of another kind."""

    def adopt(self, state: bytes) -> None:
        """Load what another process has learned, as `load`, but keep one's own pace and spending.

        For processes that share one policy: one learns, the others adopt.
        """
