"""Writes the journal rows of requests."""

from collections import deque
from collections.abc import Callable
from functools import partial

from tollway.gateway.routing.cached.row_template import RowTemplate
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.routing.sinks.records import rows, settlement_row
from tollway.gateway.storage.journal import Journal

RECENT = 20  # ids of the latest decisions, kept for people to inspect


class JournalSink:
    """Gives a request its id, and writes its rows."""

    # The mutable state is the ids of recent decisions.

    def __init__(self, journal: Journal, *, wall: Callable[[], float]) -> None:
        """`wall` is the time of day."""
        self._journal = journal
        self._wall = wall
        self.recent: deque[str] = deque(maxlen=RECENT)

    def answered(self, state: RequestState, now_s: float) -> None:
        """Write the rows of the draws and attempts."""
        if state.draws:
            state.id = self._journal.new_id()
            self._journal.record(state.id, partial(rows, state, self._wall()))
            self.recent.append(state.id)

    def repeated(self, state: RequestState, now_s: float) -> None:
        """Write the rows of a draw that is repeated, which are those of `answered`."""
        draw, cached = state.repeated, state.inference.cached
        assert draw is not None and cached is not None
        state.id = self._journal.new_id()
        time_s = self._wall()
        if draw.rows is None:
            draw.rows = RowTemplate(*rows(state, time_s))
        lines = draw.rows.lines(state.id, round(time_s, 6), round(cached.age_s, 3))
        self._journal.append_lines(lines, 2)
        self.recent.append(state.id)

    def ended(self, state: RequestState, now_s: float) -> None:
        """Write the final cost of a stream; the row of its attempt says that it is pending."""
        if state.streamed:
            number = next(n for n, one in enumerate(state.attempts) if one is state.held)
            row = settlement_row(state, number, state.attempts[number], self._wall())
            self._journal.append(row)
