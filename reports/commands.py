"""The command line of reports: `tollway report COMMAND`."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.reports import (
    devices,
    feature_versions,
    features,
    fixed_costs,
    focus,
    provider_bill,
    reconciliation,
    replicas,
    views,
)
from tollway.reports.facts import Damage
from tollway.reports.facts import devices as read_devices
from tollway.reports.facts import replicas as read_replicas
from tollway.reports.output import add_output, form_of, write
from tollway.reports.returns import Terms, better_fixed
from tollway.reports.sources import TAGS, Source, open_source, pair
from tollway.reports.tables import Table, Unknowable
from tollway.reports.totals import OF_CHARGES, UNTAGGED, Grouping, Key, Totals, add_up

_EXAMPLES = """\
examples:
  tollway report daily                 spend by day, from the journal of ./tollway.toml
  tollway report daily --by cost_center --since 2026-11-01 --out november.html
  tollway report tenants --format csv > tenants.csv
  tollway report roi tollway.toml --value-per-correct-usd 0.02
  tollway report devices tollway.toml
  tollway report replicas tollway.toml
  tollway report features tollway.toml
  tollway report invoice tollway.toml --bill openai-november.csv
  tollway report focus --out focus.csv
"""
_BILL = """\
The bill is a CSV file. Each line needs an amount and an item; with dates it is compared day by day,
and with quantities (requests, tokens, device-seconds) more causes of drift can be told apart. FOCUS
datasets and OpenAI's exports are read without further options. An item is matched with the backend
of that name, or with the backend that has it as `model` in the configuration; map others with
--item.

"""
_SOURCE = """\
SOURCE is a configuration file or the folder of a journal. With a configuration, its journal is read
and its routes and backends are known. Several sources, such as those of several gateways, are added
up. The default is tollway.toml, else .tollway/journal.

Amounts are exact to the nano-dollar. Totals equal those of budgets, metrics and the dashboard.
"""
TITLES = {"daily": "Spend", "tenants": "Spend by tenant", "roi": "Return on spend"}
Made = tuple[list[Table], Totals]


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command and return its exit code; SystemExit(2) if the command line is wrong."""
    parser = argparse.ArgumentParser(
        prog="tollway report",
        description="Report spend, its return, and the differences from a provider's bill.",
        epilog=f"{_EXAMPLES}\n{terminal.EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(commands)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments, environ))
    except Unknowable as exc:
        return terminal.fail(terminal.FAILED, str(exc))


def add(commands: Any) -> None:
    """Add the commands."""
    for name, make, summary in (
        ("daily", daily, "report spend by day"),
        ("tenants", tenants, "report spend by tenant"),
        ("roi", roi, "report the return on spend, and what single backends would have cost"),
    ):
        command = terminal.add(commands, name, _command(TITLES[name], make), summary, _SOURCE)
        add_source(command)
        add_output(command)
        command.add_argument(
            "--by", default="", metavar="A,B", help="group also by route, backend or a tag's name"
        )
        if name == "roi":
            command.add_argument(
                "--value-per-correct-usd",
                type=float,
                metavar="USD",
                help="value of a right answer (default: the route's)",
            )

    _add_plain(commands)
    _add_focus(commands)
    _add_invoice(commands)


def _add_plain(commands: Any) -> None:
    """Add the commands that have no options of their own."""
    for name, title, make, summary in (
        (
            "devices",
            "Devices",
            device_costs,
            "compare what devices have cost with what calls were charged",
        ),
        (
            "replicas",
            "Replicas",
            replica_hours,
            "show the hours of backends' replicas, their cost, and the share that is idle",
        ),
        (
            "features",
            "Features",
            features_seen,
            "report which features moved the choice, and where that changed",
        ),
        (
            "feature-versions",
            "Versions of features",
            versions_seen,
            "compare how requests fared that got each version of features",
        ),
    ):
        command = terminal.add(commands, name, _command(title, make), summary, _SOURCE)
        add_source(command)
        add_output(command)


def _add_focus(commands: Any) -> None:
    summary = "write spend as a FOCUS 1.4 dataset, for FinOps tools"
    command = terminal.add(
        commands, "focus", _command("FOCUS 1.4: cost and usage", focused), summary, _SOURCE
    )
    add_source(command)
    add_output(command, "csv")
    command.add_argument(
        "--period",
        choices=focus.PERIODS,
        default="day",
        help="period of a row, in UTC (%(default)s)",
    )
    issuer = focus.Issuer()
    command.add_argument("--issuer", default=issuer.name, help="name of the provider (%(default)s)")
    command.add_argument("--account", default=issuer.account, help="billing account (%(default)s)")


def _add_invoice(commands: Any) -> None:
    summary = "compare a provider's bill with what was charged, and name likely causes of drift"
    command = terminal.add(
        commands, "invoice", _command("Bill and journal", invoice), summary, _BILL + _SOURCE
    )
    add_source(command)
    add_output(command)
    command.add_argument(
        "--bill", type=Path, required=True, metavar="FILE", help="the bill, as CSV"
    )
    for option, meta, what in (
        ("--item", "ITEM=BACKEND", "map an item of the bill to a backend; may be repeated"),
        ("--column", "NAME=COLUMN", "name the bill's column of amount, item, date, ..."),
    ):
        command.add_argument(option, action="append", default=[], metavar=meta, help=what)
    command.add_argument(
        "--backends", default="", metavar="A,B", help="backends to compare (all on the bill)"
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.005,
        help="smaller relative differences agree (%(default)s)",
    )


def add_source(command: Any) -> None:
    """Add the options that select what a command reads."""
    command.add_argument("source", nargs="*", type=Path, metavar="SOURCE", help="see below")
    command.add_argument("--since", metavar="DATE", help="first day to include")
    command.add_argument("--until", metavar="DATE", help="first day to exclude")
    command.add_argument("--timezone", default="UTC", help="time zone of days (%(default)s)")
    command.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="include only this route, backend, tenant or tag; may be repeated",
    )


def _command(title: str, make: Callable[[Source, argparse.Namespace], Made]) -> Any:
    def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        form_of(arguments)  # refused before a long journal is read
        source = open_source(arguments, environ)
        made, whole = make(source, arguments)
        source.check_names(dimensions(getattr(arguments, "by", "")))
        write(arguments, source, title, made, whole)
        return terminal.OK

    return run


# -- the reports


def dimensions(text: str) -> tuple[str, ...]:
    """Return the dimensions that a text like `route,cost_center` names."""
    return tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))


def daily(source: Source, arguments: argparse.Namespace) -> Made:
    """Return the cost of each day, and the total cost by route, backend, tenant and tag."""
    return _spend(source, ("day", *dimensions(arguments.by)), ("route", "tenant"))


def tenants(source: Source, arguments: argparse.Namespace) -> Made:
    """Return the cost by tenant, and by tenant and route."""
    return _spend(source, ("tenant", *dimensions(arguments.by)), ())


def _spend(source: Source, by: tuple[str, ...], more: tuple[str, ...]) -> Made:
    first = Grouping(tuple(dict.fromkeys(by)), source.span)
    backends = ("backend",) if by[0] == "day" else (by[0], "backend")
    by_backend = Grouping(backends, source.span)
    provenance = Grouping(("provenance",), source.span)
    others = [Grouping((name,), source.span) for name in (*more, *TAGS) if name not in by]
    whole = Grouping((), source.span)
    add_up(source.facts(), first, by_backend, provenance, *others, whole)
    titles = {"day": "Spend by day", "tenant": "Spend by tenant"}
    made = [views.spend(titles[by[0]], first)]
    if by_backend.by != first.by:
        made.append(views.spend(f"By {' and '.join(by_backend.by)}", by_backend))
    for one in others:
        if one.by[0] in more or set(one.groups) - {(UNTAGGED,)}:
            made.append(views.spend(f"By {one.by[0].replace('_', ' ')}", one))
    made.append(views.spend("By provenance", provenance))
    return made, whole.groups.get((), Totals())


def roi(source: Source, arguments: argparse.Namespace) -> Made:
    """Return the return on spend of each route, and its savings."""
    by = ("route", *(name for name in dimensions(arguments.by) if name != "route"))
    grouping, whole = Grouping(by, source.span), Grouping((), source.span)
    by_route = Grouping(("route",), source.span)
    for option, names in (("--by", by), ("--where", source.where)):
        if OF_CHARGES.intersection(names):
            raise Unknowable(
                f"requests cannot be grouped by backend or provenance; remove them from {option}"
            )
    add_up(source.facts(), grouping, by_route, whole)
    terms = dict(source.terms)
    if arguments.value_per_correct_usd is not None:
        for key in grouping.groups:
            own = terms.get(key[0], Terms())
            terms[key[0]] = replace(own, value_per_correct_usd=arguments.value_per_correct_usd)
    borne, lines = None, []
    if source.fixed_costs:
        everything = replace(source, where={}, damage=Damage()).facts()
        borne, table = fixed_costs.counted(
            source.fixed_costs, grouping.by, source.where, everything, source.span
        )
        lines = [table]
    for (route,), totals in by_route.groups.items():
        said = better_fixed(route, totals, terms.get(route, Terms()))
        source.warnings += [said] if said else []
    made = [views.returns(grouping, terms, borne), *lines, views.savings(grouping, terms)]
    return made, whole.groups.get((), Totals())


def focused(source: Source, arguments: argparse.Namespace) -> Made:
    """Return the FOCUS dataset; its periods are in UTC."""
    source.span = replace(source.span, zone=UTC)
    grouping = Grouping((arguments.period, *focus.DIMENSIONS), source.span)
    whole = Grouping((), source.span)
    add_up(source.facts(), grouping, whole)
    issuer = focus.Issuer(arguments.issuer, arguments.account)
    made = focus.table(grouping.groups, arguments.period, issuer)
    return [made], whole.groups.get((), Totals())


def device_costs(source: Source, arguments: argparse.Namespace) -> Made:
    """Return what devices have cost, and what calls were charged of that."""
    if source.where:
        raise Unknowable("what a device has cost belongs to no request; remove --where")
    charged, whole = _charged(source)
    costs = read_devices(source.paths, source.damage)
    return [devices.table(costs, charged, source.span)], whole


def replica_hours(source: Source, arguments: argparse.Namespace) -> Made:
    """Return the hours of replicas, their cost, and what calls were charged, by day."""
    if source.where:
        raise Unknowable("what replicas cost belongs to no request; remove --where")
    charged, whole = _charged(source)
    times = read_replicas(source.paths, source.damage)
    return [replicas.table(times, charged, source.span)], whole


def _charged(source: Source) -> tuple[Mapping[Key, Totals], Totals]:
    """Return what calls were charged by day and backend, and all totals."""
    grouping, whole = Grouping(("day", "backend"), source.span), Grouping((), source.span)
    add_up(source.facts(), grouping, whole)
    return grouping.groups, whole.groups.get((), Totals())


def features_seen(source: Source, arguments: argparse.Namespace) -> Made:
    """Return which features from outside moved the choice, by day."""
    whole = _of_route_or_tenant(source, "features")
    return [features.table(source.paths, source.span, source.where)], whole


def versions_seen(source: Source, arguments: argparse.Namespace) -> Made:
    """Return how requests fared that got each version of features."""
    whole = _of_route_or_tenant(source, "versions")
    return [feature_versions.table(source.paths, source.span, source.where)], whole


def _of_route_or_tenant(source: Source, what: str) -> Totals:
    """Return the totals of a source; raise Unknowable if it is restricted to anything else."""
    if source.where.keys() - {"route", "tenant"}:
        raise Unknowable(f"{what} can be restricted to a route or tenant only; change --where")
    whole = Grouping((), source.span)
    add_up(source.facts(), whole)
    return whole.groups.get((), Totals())


def invoice(source: Source, arguments: argparse.Namespace) -> Made:
    """Return the differences between a bill and the journal."""
    names = {**source.models, **dict(map(pair, arguments.item))}
    lines = provider_bill.read(
        arguments.bill, source.span.zone, dict(map(pair, arguments.column)), names
    )
    dated = any(line.day for line in lines)
    grouping = Grouping(("day", "backend") if dated else ("backend",), source.span)
    whole = Grouping((), source.span)
    add_up(source.facts(), grouping, whole)
    wanted = set(dimensions(arguments.backends)) or {line.item for line in lines}
    charged = {
        (key[0] if dated else "", key[-1]): totals
        for key, totals in grouping.groups.items()
        if key[-1] in wanted
    }
    differences = reconciliation.compare(lines, charged, source.prices, arguments.tolerance)
    return [views.drifts(differences)], whole.groups.get((), Totals())
