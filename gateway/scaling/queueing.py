"""How long calls wait for one of several servers (M/M/c, Erlang 1917)."""

import math

import numpy as np


def waiting_chance(load: float, places: int) -> float:
    """Return Erlang's C: the probability of waiting, at `load` = rate x E[S] below `places`."""
    if load <= 0.0:
        return 0.0
    counts = np.arange(1, places + 1)
    terms = np.concatenate([[0.0], np.cumsum(math.log(load) - np.log(counts))])
    blocked = math.exp(float(terms[-1] - np.logaddexp.reduce(terms)))
    return blocked / (1.0 - load / places * (1.0 - blocked))


def memoryless_wait_s(load: float, mean_s: float, places: int) -> float:
    """Return the mean wait if arrivals and service are memoryless; inf if `load` >= `places`."""
    if load >= places:
        return math.inf
    return waiting_chance(load, places) * mean_s / (places - load)
