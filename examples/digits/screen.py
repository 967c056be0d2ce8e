"""The demo's terminal output: progress while it runs, then the table, the bars and the text."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from .client import Answer
from .tally import Row, compare

PLAIN_WIDTH = 110  # where the output is no terminal
BAR_NEEDS = 100  # columns of a terminal that has room for a progress bar beside the figures
BAR = 30


class Screen:
    """Writes to the terminal; without one, plain lines and no live display."""

    def __init__(self) -> None:
        console = Console()
        self._console = console if console.is_terminal else Console(width=PLAIN_WIDTH)

    def say(self, text: str = "") -> None:
        """Write a line; rich's markup is read."""
        self._console.print(text, highlight=False)

    def literal(self, text: str) -> None:
        """Write a line unchanged, however long: for paths and commands to copy."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def watch(self, what: str, total: int, price_usd: float | None = None) -> Iterator["Watch"]:
        """Show a run's progress; `price_usd` is the price of a call if replies do not report it."""
        watch = Watch(what, total, price_usd)
        if self._console.is_terminal:
            wide = self._console.width >= BAR_NEEDS
            columns = (
                TextColumn(f"{what:<12}"),
                *([BarColumn(16)] if wide else []),
                MofNCompleteColumn(),
                TextColumn("{task.fields[told]}"),
            )
            with Progress(*columns, console=self._console) as progress:
                task = progress.add_task(what, total=total, told="")
                watch.shown = lambda: progress.update(
                    task, completed=watch.count, told=watch.sentence()
                )
                yield watch
        else:
            watch.every = -(-total // 4)
            watch.shown = lambda: self.literal(
                f"  {what}: {watch.count}/{total} {watch.sentence()}"
            )
            yield watch

    def table(self, rows: Sequence[Row], best: Row, notes: dict[str, str]) -> None:
        """Show the rows, cheapest first as they come, compared with the best fixed backend."""
        table = Table(title="Results", title_justify="left", box=box.SIMPLE_HEAD)
        for name in ("", "requests", "accuracy", "spend", "per 1000", "saving", "points lost"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for row in rows:
            against = compare(row, best)
            table.add_row(
                row.name,
                f"{row.requests:,}",
                f"{row.accuracy:.2%}",
                f"${row.spend_usd:.4f}",
                f"${row.usd_per_request * 1000:.3f}",
                "-" if row is best else f"{against.saving:.1%}",
                "-" if row is best else f"{against.points_lost:.2f}",
                style="bold green" if row.name == "tollway" else None,
            )
        self._console.print(table)
        for name, note in notes.items():
            self.say(f"  [dim]{name}: {note}[/dim]")

    def bars(self, rows: Sequence[Row]) -> None:
        """Show spend and errors as bars: the picture, for a terminal."""
        max_price = max(row.usd_per_request for row in rows)
        worst = max(1 - row.accuracy for row in rows)
        self.say()
        self.say(f"{'':<14}{'dollars':<{BAR + 10}}wrong answers")
        for row in rows:
            spend = _bar(row.usd_per_request / max_price, BAR)
            wrong = _bar((1 - row.accuracy) / worst, BAR // 2)
            style = "bold green" if row.name == "tollway" else "cyan"
            spent, missed = f"{spend} ${row.spend_usd:.3f}", f"{wrong} {1 - row.accuracy:.1%}"
            self.say(f"{row.name:<14}[{style}]{spent:<{BAR + 10}}[/][red]{missed}[/red]")


def _bar(share: float, width: int) -> str:
    return "█" * round(share * width) or "▏"


class Watch:
    """Counts answers as they come. Its mutable state is those counts; `shown` draws them."""

    def __init__(self, what: str, total: int, price_usd: float | None) -> None:
        self.count = self.right = 0
        self.every = max(1, total // 200)
        self.shown: Callable[[], None] = lambda: None
        self._total = total
        self._price_usd = price_usd
        self._spend_usd = 0.0
        self._backends: Counter[str] = Counter()
        self._started_s = time.monotonic()

    def __call__(self, answer: Answer) -> None:
        """Count an answer."""
        self.count += 1
        self.right += answer.right
        self._spend_usd += answer.cost_usd if self._price_usd is None else self._price_usd
        if answer.backend:
            self._backends[answer.backend] += 1
        if self.count % self.every == 0 or self.count == self._total:
            self.shown()

    def sentence(self) -> str:
        """Describe the progress so far."""
        rate = self.count / max(time.monotonic() - self._started_s, 1e-9)
        per_1000 = self._spend_usd / self.count * 1000 if self.count else 0.0
        share = self.right / self.count if self.count else 0.0
        told = f"right {share:.1%}  ${per_1000:.3f}/1000  {rate:,.0f}/s"
        if len(self._backends) < 2:
            return told
        shares = sorted((name.rpartition("-")[2], n) for name, n in self._backends.items())
        who = (f"{name} {n / self.count:.0%}" for name, n in shares)
        return f"{told}  {', '.join(who)}"
