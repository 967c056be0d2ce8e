"""The demo: three real model servers behind a gateway, and what routing saves.

All results are measured: spend by the gateway's ledger and by the servers' own counts, accuracy by
the true labels of images that no model was trained on.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence

from . import closing, runs
from .data import halves
from .options import parser
from .screen import Screen
from .stage import Stage

EPOCHS = 5  # of 899 images: what a demo of a minute has time for
EPOCHS_QUICK = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if all of it worked."""
    options = parser().parse_args(arguments)
    screen = Screen()
    try:
        return asyncio.run(run(options, screen))
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.say("\nStopped.")
        return 130
    except ExceptionGroup as failed:  # of the tasks that ran side by side
        screen.literal(f"The demo failed: {failed.exceptions[0]}")
    except (RuntimeError, OSError) as exc:
        screen.literal(f"The demo failed: {exc}")
    return 1


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """Start everything, send the traffic each way, show the results, and stop everything."""
    stage = _stage(options, screen)
    task = asyncio.current_task()
    assert task is not None
    for ended in (signal.SIGTERM, signal.SIGHUP):  # so that what was started is stopped
        asyncio.get_running_loop().add_signal_handler(ended, task.cancel)
    kept = False
    try:
        await stage.start()
        screen.say(
            f"[bold]{stage.requests:,} requests each way[/bold]: "
            f"{len(stage.held_out.labels)} images that no model was trained on, repeated in a new "
            "order each time"
        )
        report = await runs.measure(stage)
        closing.show(stage, report, options.picture or stage.folder / "picture.png")
        await closing.where_to_look(stage, report, keep=options.keep)
        if options.json:
            options.json.write_text(json.dumps(report.document(), indent=1) + "\n")
        kept = options.keep
        return 0 if report.budget.exact else 1
    finally:
        if not kept:
            stage.stop()


def _stage(options: argparse.Namespace, screen: Screen) -> Stage:
    held_out = halves()[1]
    folder = options.dir.absolute() / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    return Stage(
        screen=screen,
        folder=folder,
        models=options.models.absolute(),
        held_out=held_out,
        requests=options.requests
        or (EPOCHS_QUICK if options.quick else EPOCHS) * len(held_out.labels),
        concurrency=options.concurrency,
        seed=options.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
