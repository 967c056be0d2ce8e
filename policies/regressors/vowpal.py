"""Vowpal Wabbit as a regressor over all arms of a request at once.

A request is one multi-line example: the shared line holds the context, each action line an arm's
name, and `-q` crosses them. Under `--cb_adf --cb_type dm` each line's partial prediction is exactly
the squared-loss regression of that line. So one call predicts all arms and the prepared action
lines are reused: 9 us for 3 arms and 12 us for 10, where a call per arm takes 7 us each.

This module guards against what Vowpal Wabbit does silently. No text is ever parsed (a value could
add a line or a namespace). Arguments are numbers only (`--help` ends the process). Labels and
features are checked (an infinite label destroys the model, a NaN counts as 0). `save` is checked
(it never reports a failure). A model is loaded only with its own SHA-256 (truncated models load
without an error).
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pylibvw
from vowpalwabbit import Workspace

from tollway.policies.regressors.types import Listed, Matrix, Table
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Context

KIND = "vowpal head 1"
ARMS_MAX = 4096  # arm names come from a config; this only stops a leak
LABEL_MAX = 1e6
FEATURE_MAX = 1e6
Feature = tuple[int, float]
SMALL = "--quiet --ring_size 2"
"""For any workspace: its ring of examples for an input file takes 8 MiB, and there is no file."""


class VowpalRegressor:
    """A linear regressor per arm with weights shared between arms, adaptive per weight."""

    cheap_many = 64  # contexts that are predicted in a millisecond

    # The mutable state is the workspace; the rest is prepared once and reused.

    def __init__(
        self,
        *,
        bits: int = 18,
        learning_rate: float = 0.5,
        power_t: float = 0.5,
        l2: float = 0.0,
        seed: int = 0,
    ) -> None:
        """`bits`: 2**bits weights of 16 bytes. `power_t` 0 keeps adapting, 0.5 settles."""
        self._arguments = (
            f"--cb_adf --cb_type dm -b {int(bits)} -l {float(learning_rate)!r} "
            f"--power_t {float(power_t)!r} --l2 {float(l2)!r} --random_seed {int(seed)} "
            f"-q sa -q da -q ra {SMALL}"
        )
        self._open(Workspace(self._arguments))

    def _open(self, workspace: Any) -> None:
        self._workspace = workspace
        self._label_type = workspace.get_label_type().value
        self._spaces = {name: workspace.hash_space(name) for name in "adr"}
        self._dense: list[int] = []
        self._replies: dict[str, list[int]] = {}
        self._names: dict[str, list[Feature]] = {}
        self._actions: dict[str, Any] = {}

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        """Return a value per arm; see the port."""
        lines = [self._actions.get(arm) or self._prepare(arm) for arm in arms]
        pylibvw.vw.predict_multi(self._workspace, [self._shared(context), *lines])
        values = [line.get_partial_prediction() for line in lines]
        # A NaN or infinite feature shows in every prediction, at no cost per feature.
        if not math.isfinite(sum(values)):
            raise ValueError("a context that is not finite")
        return values

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        """Return a value per context and arm; see the port."""
        return np.array([self.predict(context, arms) for context in contexts])

    def table(self, rows: int) -> Table:
        """Return a table; see the port."""
        return Listed(self)

    def learn(self, context: Context, arm: str, value: float, weight: float = 1.0) -> float:
        """Learn from one arm; see the port."""
        if not abs(value) <= LABEL_MAX:
            raise ValueError(f"a label of {value}")
        check_finite(context)
        if arm not in self._actions:
            self._prepare(arm)
        if weight != 1.0:  # `dm` ignores weights of its examples: move part of the way instead
            before = self.predict(context, [arm])[0]
            value = before + weight * (value - before)
        # 1: the probability is ignored by `dm`, but a label without one is dropped silently.
        labelled = self._example({"a": self._names[arm]}, f"0:{value:.9g}:1")
        pylibvw.vw.learn_multi(self._workspace, [self._shared(context), labelled])
        return float(labelled.get_partial_prediction())

    def _shared(self, context: Context) -> Any:
        dense, known = context.dense, self._dense
        while len(known) < len(dense):
            known.append(self._hash("d", str(len(known))))
        spaces = {"d": list(zip(known, dense, strict=False))}
        if context.sparse:
            spaces["s"] = list(context.sparse)
        if context.held:
            spaces["r"] = self._reply(context)
        return self._example(spaces, "shared")

    def _reply(self, context: Context) -> list[Feature]:
        known = self._replies.setdefault(context.held, [self._hash("r", context.held)])
        while len(known) <= len(context.reply):
            known.append(self._hash("r", f"{context.held}/{len(known)}"))
        return list(zip(known, (1.0, *context.reply), strict=False))

    def _prepare(self, arm: str) -> Any:
        if len(self._actions) >= ARMS_MAX:
            raise ValueError(f"more than {ARMS_MAX} arms")
        self._names[arm] = [(self._hash("a", arm), 1.0)]
        self._actions[arm] = self._example({"a": self._names[arm]}, None)
        return self._actions[arm]

    def _hash(self, space: str, name: str) -> int:
        return int(self._workspace.hash_feature(f"={name}", self._spaces[space]))

    def _example(self, spaces: dict[str, list[Feature]], label: str | None) -> Any:
        workspace = self._workspace
        # The native class: its Python wrapper asks the workspace for types, 4 us an example.
        example = pylibvw.example(workspace, self._label_type)
        example.push_feature_dict(workspace, spaces)
        if label is not None:
            # Before setup_example: a label set after it is never learned from.
            example.set_label_string(workspace, label, self._label_type)
        workspace.setup_example(example)
        return example

    def save(self) -> bytes:
        """Return the model, with a checksum; OSError where it could not be written."""
        model = saved(self._workspace)
        return pack(KIND, {"arguments": self._arguments}, {"model": model})

    def load(self, state: bytes) -> None:
        """Take a saved model; see the port."""
        values, parts = unpack(KIND, state)
        if values["arguments"] != self._arguments:
            raise ValueError("a model with other settings")
        # Prepared lines belong to the old workspace: using them on another is undefined.
        self._open(loaded(parts["model"]))


def saved(workspace: Any) -> bytes:
    """Return a workspace's model; OSError if it could not be written whole."""
    with tempfile.TemporaryDirectory(prefix="tollway-") as folder:
        path = Path(folder) / "model"
        try:
            workspace.save(str(path))
        except RuntimeError as exc:
            raise OSError(f"Vowpal Wabbit could not write {path}: {exc}") from exc
        if not path.is_file() or path.stat().st_size < 64:
            raise OSError(f"Vowpal Wabbit could not write {path}")
        model = path.read_bytes()
        # On a full disk it truncates the model silently; Python then cannot write it either.
        path.with_suffix(".probe").write_bytes(model)
    return model


def loaded(model: bytes) -> Any:
    """Return a workspace with a model that was checked before."""
    with tempfile.TemporaryDirectory(prefix="tollway-") as folder:
        path = Path(folder) / "model"
        path.write_bytes(model)
        return Workspace(arg_list=["-i", str(path), *SMALL.split()])


def check_finite(context: Context) -> None:
    """Raise ValueError for a context with a feature that is NaN, infinite or absurdly large."""
    total = sum([abs(value) for value in (*context.dense, *context.reply)])
    total += sum([abs(value) for _, value in context.sparse])
    if not total <= FEATURE_MAX:
        raise ValueError("a context that is not finite")
