"""`tollway prices ...`: show the price catalogue, and compare a configuration with it."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tollway.backends import catalog
from tollway.backends.catalog import CatalogMissing, Entry, UnknownModel
from tollway.backends.money import to_usd
from tollway.backends.pricing import Price, parse_price
from tollway.backends.units import HOT, UNITS
from tollway.gateway.cli import config_report, terminal

_ABOUT = """\
The catalogue is the data of the installed package genai-prices. The gateway never downloads it. A
backend with price = "catalog" takes its price from there, under the name in
catalog = "openai/gpt-4o-mini", or else under its model.
"""
_DRIFT = """\
Compares the prices in the file with the catalogue. A backend that is not in the catalogue does not
count as drift: your own servers have your own prices. Exits with code 1 if a price differs.
"""
_UPDATE = """\
Changes nothing. Prints how to get newer data and, for a configuration, the new values of the prices
that differ from the installed catalogue. Catalogue prices change with the package, at the next
start or reload: pin its version to decide when.
"""
_CLOSE = 1e-6  # relative tolerance, for prices that were divided and printed


def add(commands: Any) -> None:
    """Add the command and its subcommands."""
    summary = "show the prices of known models; compare a configuration's prices with them"
    actions = terminal.add_group(commands, "prices", summary, _ABOUT)
    more = "examples:\n  tollway prices list sonnet\n  tollway prices list openai/ --json\n"
    listing = terminal.add(actions, "list", _guarded(_list), "list known models", more)
    listing.add_argument("text", nargs="?", default="", help="part of the model's name or title")
    terminal.add_json(listing)
    more = "example:\n  tollway prices show openai/gpt-4o-mini\n\nPrints the price as TOML.\n"
    show = terminal.add(actions, "show", _guarded(_show), "show the price of a model", more)
    show.add_argument("model", help="the model's name, such as openai/gpt-4o-mini")
    terminal.add_json(show)
    diff = terminal.add(actions, "diff", _guarded(_diff), "show which prices differ", _DRIFT)
    diff.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    terminal.add_json(diff)
    update = terminal.add(
        actions, "update", _guarded(_update), "show how to update prices", _UPDATE
    )
    update.add_argument("file", type=Path, nargs="?", help="the configuration file")
    terminal.add_json(update)


def _guarded(run: Any) -> Any:
    """Wrap a command so that a missing catalogue or model is reported with its remedy."""

    def guarded(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        try:
            return int(run(arguments, environ))
        except (CatalogMissing, UnknownModel) as exc:
            return terminal.fail(terminal.FAILED, str(exc))

    return guarded


# -- list, show


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    entries = list(catalog.entries(arguments.text))
    if arguments.json:
        terminal.say_json([asdict(entry) for entry in entries])
        return terminal.OK
    if not entries:
        return terminal.fail(terminal.FAILED, f"no known model has {arguments.text!r} in its name")
    rows: list[tuple[str, ...]] = [
        ("MODEL", "TITLE", "CONTEXT", "INPUT $/M", "CACHED $/M", "OUTPUT $/M")
    ]
    rows += [_row(entry) for entry in entries]
    free = sum("free" in entry.table for entry in entries)
    unknown = sum(not entry.table for entry in entries)
    terminal.say(
        *terminal.columns(rows),
        f"{len(entries)} models, {free} of them free and {unknown} without a known price, "
        f"genai-prices {catalog.version()}",
    )
    return terminal.OK


def _row(entry: Entry) -> tuple[str, ...]:
    keys = ("input_usd_per_mtok", "cached_input_usd_per_mtok", "output_usd_per_mtok")
    context = f"{entry.context_tokens}" if entry.context_tokens else "-"
    if "free" in entry.table or not entry.table:
        told = "free" if entry.table else "unknown"
        return entry.name, entry.title[:32], context, *[told for _ in keys]
    prices = [f"{entry.table[key]:g}" if key in entry.table else "-" for key in keys]
    return entry.name, entry.title[:32], context, *prices


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    entry = catalog.find(arguments.model)
    if arguments.json:
        terminal.say_json(asdict(entry))
        return terminal.OK
    terminal.say(
        f"# {entry.name}: {entry.title}", f"# {config_report.price(parse_price(entry.table))}"
    )
    if entry.context_tokens:
        terminal.say(f"# context: {entry.context_tokens:,} tokens")
    if entry.left_out:
        terminal.say(f"# not priced here: {', '.join(entry.left_out)}")
    terminal.say(_toml(entry.table))
    return terminal.OK


def _toml(table: Mapping[str, Any]) -> str:
    return config_report.as_toml({"price": [table]}).replace("[[price]]", "[price]").strip()


# -- diff, update


def _diff(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    changes = list(_compared(arguments.file, environ))
    drifted = [one for one in changes if one["differs"]]
    if arguments.json:
        terminal.say_json({"catalog": catalog.version(), "backends": changes})
    else:
        terminal.say(*[line for one in changes for line in _lines(one)])
    return terminal.FAILED if drifted else terminal.OK


def _update(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    command = "pip install --upgrade genai-prices"
    changes = [] if arguments.file is None else list(_compared(arguments.file, environ))
    drifted = [one for one in changes if one["differs"]]
    if arguments.json:
        document = {"catalog": catalog.version(), "command": command, "backends": drifted}
        terminal.say_json(document)
        return terminal.OK
    terminal.say(f"installed: genai-prices {catalog.version()}", f"for newer data: {command}")
    for one in drifted:
        terminal.say("", *[f"# {line}" for line in _lines(one)], f"price = {_inline(one['table'])}")
    if arguments.file is not None and not drifted:
        terminal.say(f"{arguments.file}: no price differs from the catalogue")
    return terminal.OK


def _inline(table: Mapping[str, Any]) -> str:
    return config_report.as_toml({"x": [{"price": table}]}).strip().partition("price = ")[2]


def _lines(one: Mapping[str, Any]) -> Iterator[str]:
    name = one["backend"]
    if one["model"] is None:
        yield f"{name}: the catalogue has no price"
    elif one["from_catalog"]:
        yield f"{name}: from the catalogue ({one['model']})"
    elif not one["differs"]:
        yield f"{name}: same as {one['model']}"
    for change in one["differs"]:
        configured_usd, catalog_usd = change["configured_usd"], change["catalog_usd"]
        yield (
            f"{name}: {change['what']} ${configured_usd:g}, "
            f"in the catalogue ${catalog_usd:g} ({one['model']})"
        )


def _compared(file: Path, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield, for each backend, how its price differs from the catalogue's."""
    from tollway.gateway.settings import load  # noqa: PLC0415 - the other commands start faster without

    for backend in load(file, environ).backends:
        name = backend.catalog or backend.model
        entry = None
        if name is not None and backend.url is not None:
            try:
                entry = catalog.find(name, "" if backend.catalog else backend.url)
            except UnknownModel:
                entry = None
        differs: list[dict[str, Any]] = []
        if entry is not None and not backend.from_catalog and backend.device is None:
            differs = list(_differences(backend.parsed_price(), parse_price(entry.table)))
        yield {
            "backend": backend.name,
            "model": None if entry is None else entry.name,
            "from_catalog": backend.from_catalog,
            "differs": differs,
            "table": None if entry is None else entry.table,
        }


def _differences(configured: Price, listed: Price) -> Iterator[dict[str, Any]]:
    """Yield the catalogue's units in which two prices differ, with the tier where they do."""
    lengths = sorted({above for price in (configured, listed) for above, _ in price.tiers})
    for above in (0.0, *lengths):
        where = f" above {above:,.0f} input tokens" if above else ""
        one, other = configured.at(above + 1.0), listed.at(above + 1.0)
        yield from _units_that_differ(one, other, where)
    tiers = dict(configured.service_tiers), dict(listed.service_tiers)
    for name in sorted(tiers[0].keys() & tiers[1].keys()):
        yield from _units_that_differ(tiers[0][name], tiers[1][name], f", served as {name}")


def _units_that_differ(configured: Price, listed: Price, where: str) -> Iterator[dict[str, Any]]:
    for unit in UNITS:
        mine, theirs = configured.rate(unit.name), listed.rate(unit.name)
        differs = abs(mine - theirs) > _CLOSE * max(mine, theirs)
        if differs and (unit.name in HOT or unit.name in dict(listed.more)):
            yield {
                "what": f"{config_report.each(unit)}{where}",
                "unit": unit.name,
                "configured_usd": to_usd(mine * unit.per),
                "catalog_usd": to_usd(theirs * unit.per),
            }
