"""The implementation of `tollway simulate fit`; its options are in journal_commands.py."""

import argparse
import re

import polars as pl

from tollway.gateway.cli import terminal
from tollway.simulations.replay import log_files
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import BadLog
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.world import fit, scenario_file


def _name(stem: str) -> str:
    """Return a scenario's name that is like a file's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:63] or "fitted"


def run(arguments: argparse.Namespace) -> int:
    """Fit a scenario to a journal, write it and print what was found."""
    scratch = Scratch()  # the log is read from there until the end
    try:
        log = log_files.read(arguments.journal, scratch, Columns(), route=arguments.route)
        assert log.path is not None
        counts = pl.scan_parquet(log.path).group_by("tenant").len().collect()["len"].to_numpy()
        world = fit.fit(log, counts.astype(float), _name(arguments.out.stem))
    except BadLog as exc:
        return terminal.fail(terminal.FAILED, str(exc))
    scenario_file.parse(world.text, source=str(arguments.out))
    try:
        arguments.out.write_text(world.text, encoding="utf-8")
    except OSError as exc:
        return terminal.fail(terminal.FAILED, f"{arguments.out}: {exc.strerror}")
    rows = [("BACKEND", "CALLS", "$ PER 1000", "QUALITY", "LATENCY")]
    rows += [
        (
            one.name,
            f"{one.calls:,}",
            f"{one.cost_usd * 1000.0:.4f}",
            f"{one.quality:.4f} [{one.ends[0]:.4f}, {one.ends[1]:.4f}]",
            f"{one.latency_s:.3g} s",
        )
        for one in world.backends
    ]
    notes = [f"note: {note}" for note in world.notes]
    terminal.say(*terminal.columns(rows), *notes, f"wrote {arguments.out}")
    return terminal.OK
