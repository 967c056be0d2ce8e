"""Models each arm's outcome, from earlier decisions only.

A ridge head learns as it goes through the log. Its prediction for a decision is made before it
learns from that decision, so it may be used in sums whose terms must not depend on their own
outcomes (see estimators.py).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.types import Context
from tollway.simulations.replay.logs import Floats, Log

SAMPLES_MAX = 50_000  # a ridge of a few dozen weights has long converged; takes 1.5 s
STRIDE_ROWS = 64  # decisions predicted at once, before learning from them
PRIOR = 0.5  # the prediction for an arm before any feedback


def qualities(log: Log) -> Floats:
    """Return the quality of every arm for every decision (n x K), each in [0, 1]."""
    head = RidgeRegressor(prior=1.0, forget=1.0, folds=32)
    predicted = np.empty((len(log), len(log.arms)))
    every = max(1, len(log) // SAMPLES_MAX)
    for start, stop in log.batches():
        contexts = log.contexts(start, stop)
        for at in range(start, stop, STRIDE_ROWS):
            end = min(at + STRIDE_ROWS, stop)
            some = contexts[at - start : end - start]
            predicted[at:end] = head.predict_many(some, log.arms)
            _teach(head, some, log, range(at, end), every)
    return np.clip(predicted + PRIOR, 0.0, 1.0)


def fitted(log: Log, taught: NDArray[np.bool_]) -> Floats:
    """Return the quality of every arm for every decision, fitted to the decisions `taught`."""
    head = RidgeRegressor(prior=1.0, forget=1.0, folds=32)
    every = max(1, len(log) // SAMPLES_MAX)
    for start, stop in log.batches():
        rows = [row for row in range(start, stop) if taught[row]]
        contexts = log.contexts(start, stop)
        _teach(head, [contexts[row - start] for row in rows], log, rows, every)
    predicted = np.empty((len(log), len(log.arms)))
    for start, stop in log.batches():
        predicted[start:stop] = head.predict_many(log.contexts(start, stop), log.arms)
    return np.clip(predicted + PRIOR, 0.0, 1.0)


def _teach(
    head: RidgeRegressor, contexts: list[Context], log: Log, rows: Sequence[int], every: int
) -> None:
    for context, row in zip(contexts, rows, strict=True):
        quality = log.quality[row]
        if np.isfinite(quality) and row % every == 0:
            head.learn(context, log.arms[log.arm[row]], float(quality) - PRIOR)


def costs(log: Log) -> Floats:
    """Return the cost of every arm at every decision (n x K): the quote, else the mean so far."""
    means = means_before(log.cost_usd, log.arm, len(log.arms))
    return np.where(np.isfinite(log.cost_hat_usd), log.cost_hat_usd, means)


def means_before(values: Floats, arm: NDArray[np.int64], arms: int) -> Floats:
    """Return each arm's mean over earlier decisions (n x K), or that of all arms if it has none."""
    ones = np.zeros((len(values), arms))
    ones[np.arange(len(values)), arm] = 1.0
    known = np.nan_to_num(values)[:, None] * ones
    counts, sums = np.cumsum(ones, axis=0) - ones, np.cumsum(known, axis=0) - known
    overall = sums.sum(axis=1) / np.maximum(counts.sum(axis=1), 1.0)
    mean: Floats = np.where(counts > 0.0, sums / np.maximum(counts, 1.0), overall[:, None])
    return mean
