"""The demo's closing output: the table, the bars, the picture, the budget, and what to see next."""

import shlex
import sys
from pathlib import Path

from . import tally
from .client import connect
from .picture import draw
from .runs import Report
from .stage import Stage


def show(stage: Stage, report: Report, picture: Path) -> None:
    """Show what was measured."""
    screen, best, tollway = stage.screen, report.best, report.tollway
    *cheaper, max_price = report.fixed
    screen.say()
    screen.table(
        [*cheaper, report.split, report.hull, tollway, report.last_half, max_price],
        best,
        {
            "90/10": "90 % of requests to digits-cpu and 10 % to digits-large, at random",
            "hull": "the best accuracy of any fixed mix of these backends at Tollway's cost",
            "tollway": "all of its traffic, from a cold start with declared accuracies and no "
            f"labels; ledger ${tollway.spend_usd:.5f}, calls counted by the servers "
            f"${report.seen_usd:.5f}",
        },
    )
    screen.bars([*cheaper, report.split, tollway, max_price])
    against = tally.compare(tollway, best)
    screen.say(
        f"\n[bold green]{against.saving:.1%} saved[/bold green] compared with always {best.name}, "
        f"[bold]{against.points_lost:.2f} points[/bold] of accuracy lost; "
        f"{(tollway.accuracy - report.hull.accuracy) * 100:+.2f} points above the hull."
    )
    draw(picture, tollway, report.fixed, report.split, report.answers)
    screen.literal(f"Picture: {picture}")
    screen.say(f"\n[bold]A hard budget[/bold]\n{report.budget.sentence()}")


async def where_to_look(stage: Stage, report: Report, *, keep: bool) -> None:
    """Explain one decision that went to the best model, and list where everything is."""
    screen = stage.screen
    escalated = [answer for answer in report.answers if answer.backend == report.best.name]
    decision = (escalated or report.answers)[-1].decision
    async with connect(stage.url) as client:
        told = await client.get(f"/_tollway/decisions/{decision}")
    screen.say(f"\n[bold]One decision explained[/bold] ({decision})")
    for sentence in told["story"]:
        screen.literal(f"  {sentence}")
    screen.say("\n[bold]Where to look next[/bold]")
    screen.literal(f"  configuration  {stage.folder / 'tollway.toml'}")
    screen.literal(f"  journal        {stage.folder / '.tollway' / 'journal'}")
    screen.literal(f"  logs           {stage.folder}")
    if keep:
        command = f"{shlex.quote(sys.executable)} -m tollway"
        screen.literal(f"  dashboard      {stage.url}/_tollway/dashboard")
        screen.literal(f"  metrics        {stage.url}/metrics")
        screen.literal(f"  budgets        {command} budgets list --url {stage.url}")
        screen.literal(f"  a decision     {command} explain {decision} --url {stage.url}")
        screen.literal(f"  to stop        kill {' '.join(str(one.pid) for one in stage.running)}")
    else:
        screen.say("  scripts/demo --keep leaves the gateway and the servers running")
