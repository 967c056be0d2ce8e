"""Thousands of seeded fault sequences (crashes, lost ledgers, clock steps); money stays right.

The fast run has QUICK of them, the integration run the others. TOLLWAY_SEEDS=10000 runs more;
TOLLWAY_SEED=17 runs one again, exactly.
"""

import os
from pathlib import Path

import pytest

from tests.support.virtual import run
from tests.support.world import story

SEEDS = int(os.environ.get("TOLLWAY_SEEDS", "100"))
FOUND = [1004]
"""Stories that once went wrong: a call that waited for ever, between two budgets that are short."""
ONE = os.environ.get("TOLLWAY_SEED")
QUICK = 20  # they take two seconds
STORIES = [*range(min(QUICK, SEEDS)), *FOUND]
MORE = [pytest.param(seed, marks=pytest.mark.integration) for seed in range(QUICK, SEEDS)]


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else [*STORIES, *MORE])
def test_no_fault_sequence_overspends_loses_or_creates_money(seed: int, tmp_path: Path) -> None:
    world = run(story(seed, tmp_path))
    world.check()


@pytest.mark.integration
def test_fault_sequences_include_overdrafts_and_carrying(tmp_path: Path) -> None:
    """Without overdrafts the sequences above would prove nothing about carrying them."""
    worlds = [run(story(seed, tmp_path / str(seed))) for seed in range(40)]
    events = [event.kind for world in worlds for event in world.events]
    assert events.count("overdraft") > 10
    carried = [world.carried_nano(book) for world in worlds for book in world.ledger.books()]
    assert sum(nano > 0 for nano in carried) > 5
