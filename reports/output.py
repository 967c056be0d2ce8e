"""Output: a report's tables printed, or written to a file in the form that its suffix names."""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tollway.reports import pages, tables
from tollway.reports.sources import Source
from tollway.reports.tables import FORMATS, Table, Unknowable
from tollway.reports.totals import Totals

SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".md": "md",
    ".txt": "text",
}
"""The form of a file by its suffix."""


def add_output(command: Any, default: str = "text") -> None:
    """Add the options that select how a command writes its output."""
    command.add_argument(
        "--format",
        choices=FORMATS,
        help=f"default: by FILE's suffix, else {default}; "
        "CSV, JSON lines and Parquet hold the first table",
    )
    command.set_defaults(default_format=default)
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"write to this file; its suffix chooses the form: {' '.join(SUFFIXES)}",
    )


def form_of(arguments: argparse.Namespace) -> str:
    """Return the form to write; raise Unknowable if the file's suffix names none."""
    out: Path | None = arguments.out
    if arguments.format:
        form = str(arguments.format)
    elif out is None:
        form = str(arguments.default_format)
    elif (suffix := out.suffix.lower()) in SUFFIXES:
        form = SUFFIXES[suffix]
    else:
        raise Unknowable(
            f"the suffix of {str(out)!r} names no form; use one of {', '.join(SUFFIXES)}, "
            "or add --format"
        )
    if form == "parquet" and out is None:
        raise Unknowable("Parquet cannot be printed; add --out FILE")
    return form


def write(
    arguments: argparse.Namespace, source: Source, title: str, made: list[Table], whole: Totals
) -> None:
    """Write tables in the requested form; notes about them go to stderr."""
    form, out = form_of(arguments), arguments.out
    notes = source.notes()
    if not any(table.rows for table in made):
        nothing = source.nothing()
        if form == "text":
            made = [Table(nothing, (), ())]
        if form != "text" or out is not None:
            notes.append(nothing)
    lead = ". ".join([*source.warnings, source.title()])
    if form == "text":
        made = [*(Table(said, (), ()) for said in source.warnings), *made]
    elif form not in {"md", "html"} or out is not None:
        notes += source.warnings
    if form == "parquet":
        tables.write_parquet(made[0], out)
    else:
        width = _width(out)
        forms: dict[str, Callable[[], str]] = {
            "text": lambda: "\n".join("\n".join([*tables.text(one, width), ""]) for one in made),
            "csv": lambda: tables.as_csv(made[0]),
            "json": lambda: tables.as_json(made) + "\n",
            "jsonl": lambda: tables.as_json_lines(made[0]),
            "md": lambda: tables.markdown(title, lead, made),
            "html": lambda: pages.page(title, lead, whole, made),
        }
        written = forms[form]()
        if out is None:
            sys.stdout.write(written)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(written, encoding="utf-8", newline="")
    sys.stderr.writelines(f"note: {note}\n" for note in notes)


def _width(out: Path | None) -> int | None:
    """Return the terminal's width in characters; None if the output is a file or a pipe."""
    if out is not None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns
