"""Which contexts a warm-up may give."""

import math
from typing import Any

import pytest

from tollway.backends.errors import BadRequest
from tollway.gateway.learning.warm_up import _context


def test_a_context_has_numbers_and_hashed_features() -> None:
    context = _context({"dense": [1, 0.5], "sparse": [[3, 1.0]]})
    assert (context.dense, context.sparse) == ((1.0, 0.5), ((3, 1.0),))


@pytest.mark.parametrize(
    "given",
    [
        *(None, [], {}, {"dense": [], "sparse": [[math.inf, 1.0]]}),
        *({"dense": [math.nan], "sparse": []}, {"dense": [], "sparse": [[1 << 18, 1.0]]}),
        *({"dense": [10**400], "sparse": []}, {"dense": [], "sparse": [[math.nan, 1.0]]}),
    ],
)
def test_what_is_no_context_is_refused(given: Any) -> None:
    with pytest.raises(BadRequest, match="context"):
        _context(given)
