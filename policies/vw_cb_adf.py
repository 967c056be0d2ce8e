"""Vowpal Wabbit's own bandit with cost and quality folded into one loss: a baseline, not for use.

loss = (1 - quality) + lambda * cost, learned by `--cb_explore_adf --squarecb`; lambda follows the
overspending. Every example learned under another lambda is wrong afterwards, and the gaps that
SquareCB explores by are in mixed units: at a third of the budget it stops finding the good arms. It
is included because it is the obvious first design.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import pylibvw
from vowpalwabbit import Example, Workspace

from tollway.policies.baselines import Baseline
from tollway.policies.evidence.whole_labels import Whole
from tollway.policies.regressors.vowpal import SMALL, check_finite, loaded, saved
from tollway.policies.sampling import draw
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Arm, Choice, Context

STEP = 0.01  # per request, in units of 1 / allowance: ParetoBandit's rate is of the same order


class VwCbAdf(Baseline):
    """`cb_explore_adf` with SquareCB over quality less lambda times cost."""

    kind = "cb_explore_adf 1"

    def __init__(self, *, gamma_scale: float = 100.0, seed: int = 0) -> None:
        self.version = 0
        self._arguments = (
            f"--cb_explore_adf --squarecb --gamma_scale {float(gamma_scale)!r} --cb_type mtr "
            f"-q sa -q da --ignore_linear s --ignore_linear d -b 18 {SMALL} "
            f"--random_seed {int(seed)}"
        )
        self._workspace: Any = Workspace(self._arguments)
        self._allowance_usd: float | None = None
        self._over = 0.0  # lambda, in units of 1 / allowance
        self._whole = Whole()

    def _lines(
        self, context: Context, arms: Sequence[str], drawn: str = "", label: str = ""
    ) -> Any:
        spaces: dict[str, Any] = {"d": list(enumerate((1.0, *context.dense)))}
        if context.sparse:
            spaces["s"] = list(context.sparse)
        lines = [self._example(spaces, "shared")]
        space = self._workspace.hash_space("a")
        for arm in arms:
            feature = [(self._workspace.hash_feature(f"={arm}", space), 1.0)]
            lines.append(self._example({"a": feature}, label if arm == drawn else ""))
        return lines

    def _example(self, spaces: dict[str, Any], label: str) -> Any:
        example = Example(self._workspace, spaces)
        if label:
            example.set_label_string(label)
        example.setup_example()
        return example

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw by Vowpal Wabbit's probabilities."""
        names = tuple([arm.name for arm in arms])
        check_finite(context)
        lines = self._lines(context, names)
        pylibvw.vw.predict_multi(self._workspace, lines)
        raw = [max(0.0, p) for p in lines[0].get_action_scores()]
        total = sum(raw)
        even = not (total > 0.0 and math.isfinite(total))
        pmf = [1.0 / len(names) if even else p / total for p in raw]
        return Choice(
            names,
            tuple(pmf),
            draw(pmf, rng),
            tuple([0.0] * len(names)),
            tuple([arm.cost_usd for arm in arms]),
            self._over / self._allowance_usd if self._allowance_usd else 0.0,
            "drawn",
            self.version,
        )

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
        """Learn the loss at the shadow price at which the arm was drawn."""
        if arm != choice.arm or not self._whole.add(belief):
            return
        if not 0.0 <= quality <= 1.0:
            raise ValueError(f"a quality of {quality}, not in [0, 1]")
        check_finite(context)
        loss = 1.0 - quality + choice.shadow_price * choice.cost_hat_usd[choice.index]
        label = f"0:{min(loss, 10.0):.7g}:{max(choice.propensity, 1e-6):.7g}"
        pylibvw.vw.learn_multi(self._workspace, self._lines(context, choice.arms, arm, label))
        self.version += 1

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Move lambda with the overspending."""
        if self._allowance_usd:
            self._over += STEP * (cost_usd / self._allowance_usd - 1.0)
            self._over = min(max(self._over, 0.0), 10.0)

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Set what the route's budgets allow per request; all requests share one price."""
        if not scope:
            self._allowance_usd = allowance_usd

    def save(self) -> bytes:
        """Return the model, with a checksum; OSError where it could not be written."""
        values = {"over": self._over, "version": self.version, "arguments": self._arguments}
        return pack(self.kind, values, {"model": saved(self._workspace)})

    def load(self, state: bytes) -> None:
        """Take a saved model; see the port."""
        values, parts = unpack(self.kind, state)
        if values["arguments"] != self._arguments:
            raise ValueError("a model with other settings")
        self._workspace = loaded(parts["model"])
        self._over, self.version = float(values["over"]), int(values["version"])

    def adopt(self, state: bytes) -> None:
        """Load another process's model, keep one's own lambda; see the port."""
        over = self._over
        self.load(state)
        self._over = over
