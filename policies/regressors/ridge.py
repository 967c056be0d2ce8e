"""Discounted ridge regression per arm: exact, with a variance, on a few dozen features.

For each arm A = sum g^k x x' + lam I and b = sum g^k y x are kept as A^-1 and theta = A^-1 b, by
Sherman and Morrison's formula. An arm forgets only on its own updates, so an idle arm keeps what it
learned. Where forgetting would lose more than was ever known, trace(A^-1) is held at its prior.
Sparse features are folded into `folds` numbers with signs (Weinberger et al. 2009), from the first
context on that has any. They come last, so that a route without words has short, fast rows.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tollway.policies.regressors.types import Matrix, Rows, Table
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Context

KIND = "ridge head 2"
FEATURE_MAX = 1e6  # in length: a longer context is damaged
FEW = 16  # sparse features that are added one by one; a text's are summed up first
MEMO_MAX = 512  # contexts in each of two generations: together half a megabyte
Vector = NDArray[np.float64]


SPARSE_BITS = 18  # as defined by `Context`


class RidgeRegressor:
    """A ridge regressor per arm; in a cascade, per pair of current reply and arm."""

    cheap_many = 400  # contexts: all that prices are solved over

    # The mutable state is, per arm, its row in theta and in the inverses; and a memo.

    def __init__(self, *, prior: float = 8.0, forget: float = 0.999, folds: int = 64) -> None:
        """`prior`: its weight, in rows; `forget`: the share of earlier rows that remains per
        update.
        """
        if not (prior > 0 and 0 < forget <= 1 and folds > 0):
            raise ValueError(f"prior {prior}, forget {forget}, folds {folds}")
        self._prior, self._forget, self._folds = prior, forget, folds
        # By a context's id, which cannot be reused: the context is stored with its features.
        self._memo: dict[int, tuple[Context, Vector]] = {}
        self._older: dict[int, tuple[Context, Vector]] = {}
        self._folding = False
        self._rows: dict[str, int] = {}
        self._asked: Sequence[str] = ()
        self._asked_rows: list[int] = []
        self._theta: Vector = np.zeros((0, 0))
        self._inverse: Vector = np.zeros((0, 0, 0))

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        """Return a value per arm; see the port."""
        x = self.features(context)
        size = len(x)
        # Nearly always the same arms are offered again: then their rows need no look-up.
        if arms == self._asked and not context.held and size <= self._theta.shape[1]:
            rows = self._asked_rows
        else:
            rows = self._rows_of(context, arms, size)
            if isinstance(arms, tuple) and not context.held:  # a list could be changed later
                self._asked, self._asked_rows = arms, rows
        theta = self._theta
        # All rows: a product is faster than first picking rows from the table.
        values: list[float] = (theta if size == theta.shape[1] else theta[:, :size]).dot(x).tolist()
        return [values[row] for row in rows]

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        """Return a value per context and arm; see the port."""
        table = np.empty((len(contexts), len(arms)))
        kinds: dict[str, list[int]] = {}
        for at, context in enumerate(contexts):
            kinds.setdefault(context.held, []).append(at)
        for places in kinds.values():
            # Not by `stack`, which takes five times as long to check its arguments.
            each = [self.features(contexts[at]) for at in places]
            x = np.concatenate(each).reshape(len(each), len(each[0]))
            table[places] = self.values(x, contexts[places[0]], arms)
        return table

    def table(self, rows: int) -> Table:
        """Return a table; see the port."""
        return _Table(self, rows)

    def values(self, x: Matrix, context: Context, arms: Sequence[str]) -> Matrix:
        """Return a value per row of features and arm; all have the same reply in hand."""
        rows = self._rows_of(context, arms, x.shape[1])
        values: Matrix = x @ self._theta[rows, : x.shape[1]].T
        return values

    def variance(self, context: Context, arm: str) -> float:
        """Return x' A^-1 x: the prediction's variance in units of the noise's."""
        x = self.features(context)
        row = self._row(_key(context, arm), len(x))
        return float(x @ self._inverse[row, : len(x), : len(x)] @ x)

    def learn(self, context: Context, arm: str, value: float, weight: float = 1.0) -> float:
        """Learn from one arm; see the port."""
        if not abs(value) < float("inf"):
            raise ValueError(f"a label of {value}")
        x = self.features(context)
        row = self._row(_key(context, arm), len(x))
        inverse, theta = self._inverse[row, : len(x), : len(x)], self._theta[row, : len(x)]
        inverse /= self._forget if weight == 1.0 else self._forget**weight
        gain = inverse @ x
        gain_over = gain / (1.0 / weight + x @ gain)
        before = float(theta @ x)
        theta += gain_over * (value - before)
        inverse -= gain_over[:, None] * gain
        most = len(x) / self._prior
        trace = float(inverse.trace())
        if trace > most:
            inverse *= most / trace
        return before

    def features(self, context: Context) -> Vector:
        """Return the features, and cache them for a label that arrives soon."""
        key = id(context)
        cached = self._memo.get(key) or self._older.get(key)
        if cached is not None:
            return cached[1]
        if len(self._memo) >= MEMO_MAX:
            self._memo, self._older = {}, self._memo
        x = self._encode(context)
        self._memo[key] = (context, x)
        return x

    def _clear(self) -> None:
        """Drop the cached features."""
        self._memo, self._older = {}, {}

    def _encode(self, context: Context) -> Vector:
        if context.sparse and not self._folding:
            self._folding = True
            self._clear()  # features of another length
        numbers = (1.0, *context.dense, *context.reply)
        if not self._folding:
            x = np.array(numbers)
        else:
            size = len(numbers)
            x = np.zeros(size + self._folds)
            x[:size] = numbers
            if len(context.sparse) > FEW:
                x[size:] = self._folded(context)
            else:
                self._fold(context, x[size:])
        if not x.dot(x) <= FEATURE_MAX * FEATURE_MAX:
            raise ValueError("a context that is not finite")
        return x

    def _fold(self, context: Context, folds: Vector) -> None:
        """Add the few sparse features that names or classes make: 0.2 us each."""
        at, count = places(self._folds), self._folds
        for index, value in context.sparse:
            place = at[index]
            if place < count:
                folds[place] += value
            else:
                folds[place - count] -= value

    def _folded(self, context: Context) -> Vector:
        # A loop: converting the pairs to numpy takes longer than adding them here.
        sums, at = [0.0] * (2 * self._folds), places(self._folds)
        for index, value in context.sparse:
            sums[at[index]] += value
        both: Vector = np.array(sums)
        folded: Vector = both[: self._folds] - both[self._folds :]
        return folded

    def _rows_of(self, context: Context, arms: Sequence[str], size: int) -> list[int]:
        """Return the rows of arms, created where missing, each at least `size` wide."""
        keys = [_key(context, arm) for arm in arms] if context.held else arms
        if size <= self._theta.shape[1]:
            try:
                return [self._rows[key] for key in keys]
            except KeyError:
                pass
        return [self._row(key, size) for key in keys]

    def _row(self, key: str, size: int) -> int:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = len(self._rows)
            self._grow(len(self._rows), size)
            self._inverse[row] = np.eye(self._inverse.shape[1]) / self._prior
        elif size > self._theta.shape[1]:
            self._grow(len(self._rows), size)
        return row

    def _grow(self, rows: int, size: int) -> None:
        old_rows, old_size = self._theta.shape
        size = max(size, old_size)
        theta, inverse = np.zeros((rows, size)), np.zeros((rows, size, size))
        inverse[:] = np.eye(size) / self._prior
        theta[:old_rows, :old_size] = self._theta
        inverse[:old_rows, :old_size, :old_size] = self._inverse
        self._theta, self._inverse = theta, inverse

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        values = {
            "rows": self._rows,
            "size": self._theta.shape[1],
            "folds": self._folds,
            "folding": self._folding,
        }
        parts = {"theta": self._theta.tobytes(), "inverse": self._inverse.tobytes()}
        return pack(KIND, values, parts)

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        values, parts = unpack(KIND, state)
        if values["folds"] != self._folds:
            raise ValueError(f"a state with {values['folds']} folds, not {self._folds}")
        count, size = len(values["rows"]), values["size"]
        self._rows = {str(key): int(row) for key, row in values["rows"].items()}
        self._asked = ()
        self._folding = bool(values["folding"])
        self._clear()
        self._theta = np.frombuffer(parts["theta"]).reshape(count, size).copy()
        self._inverse = np.frombuffer(parts["inverse"]).reshape(count, size, size).copy()


class _Table:
    """The features of contexts in one array: a tenth of the time of one by one."""

    # The mutable state is the features, a row each, and the context added last.

    def __init__(self, head: RidgeRegressor, rows: int) -> None:
        self._head = head
        self._x: Matrix = np.zeros((rows, 0))
        self._last = Context(())

    def put(self, row: int, context: Context) -> None:
        """Store a context in a row; see the port."""
        x = self._head.features(context)
        size = len(x)
        wider = size - self._x.shape[1]
        if wider > 0:  # the first context, or the first with words
            self._x = np.hstack([self._x, np.zeros((len(self._x), wider))])
        self._x[row, :size] = x
        if wider < 0:
            self._x[row, size:] = 0.0
        self._last = context

    def predict(self, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Return a value per row and arm; see the port."""
        return self._head.values(self._x[rows], self._last, arms)


@lru_cache(maxsize=4)
def places(folds: int) -> Sequence[int]:
    """Return each sparse index's fold; add `folds` where its sign is negative.

    Half a megabyte, and 10 ms once.
    """
    # Knuth's multiplicative hash: neighbouring indices must not share a fold and a sign.
    mixed = (np.arange(1 << SPARSE_BITS) * 2654435761 & 0xFFFFFFFF) >> 12
    return array("H", ((mixed >> 1) % folds + folds * (1 - (mixed & 1))).tolist())


def _key(context: Context, arm: str) -> str:
    return f"{context.held}>{arm}" if context.held else arm
