"""`tollway budgets ...`: show and change budgets of a running gateway."""

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tollway.backends.money import format_usd
from tollway.gateway.cli import terminal

_CHANGES = """\
Every change records who made it (--who, by default your login name) and why. The record stays in
the ledger forever. No change lowers the spent amount: a reset frees the whole limit in addition.
"""


def add(commands: Any) -> None:
    """Add the command and its subcommands."""
    summary = "show each budget's spent, held and free amounts; change limits, with an audit record"
    actions = terminal.add_group(commands, "budgets", summary)
    terminal.add_remote(terminal.add(actions, "list", _list, "list all budgets", terminal.REMOTE))
    for name, run, text in (
        ("show", _show, "show one budget in full"),
        ("holders", _holders, "show which processes hold leases of a budget"),
        ("changes", _changes, "show the changes of a budget, by whom and why"),
    ):
        _named(terminal.add(actions, name, run, text, terminal.REMOTE))
    limit = _changing(actions, "set", _set, "set the limit of a budget")
    limit.add_argument("limit_usd", help="the new limit in dollars, such as 25.50")
    credit = _changing(
        actions, "credit", _credit, "raise the limit of a budget for the current window"
    )
    credit.add_argument("amount_usd", help="dollars, such as 5")
    _changing(
        actions, "reset", _reset, "free the whole limit of a budget again in the current window"
    )
    text = "release the lease of a lost machine, or the open calls of a killed gateway"
    release = _changing(actions, "release", _release, text)
    release.add_argument("lease", help="the lease id, from `budgets holders`")
    release.add_argument(
        "--billed", metavar="USD", help="the part that the provider billed; it stays spent"
    )


def _named(command: Any) -> Any:
    command.add_argument("name", help="the budget's name")
    terminal.add_remote(command)
    return command


def _changing(actions: Any, name: str, run: Any, text: str) -> Any:
    command = _named(terminal.add(actions, name, run, text, f"{_CHANGES}\n{terminal.REMOTE}"))
    command.add_argument("--why", required=True, help="the reason, which is recorded")
    command.add_argument(
        "--who", default=None, help="who makes the change (default: your login name)"
    )
    return command


# -- reading


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    budgets = terminal.remote(arguments, environ).get("budgets")["budgets"]
    if arguments.json:
        terminal.say_json(budgets)
        return terminal.OK
    rows = [("BUDGET", "WINDOW", "ENFORCED", "LIMIT", "SPENT", "HELD", "FREE", "OVER", "USED")]
    for budget in budgets:
        parts = ("limit", "spent", "held", "free", "overdraft")
        amounts = [format_usd(budget[f"{part}_nano"]) for part in parts]
        kind = (budget["name"], budget["window"], budget["enforcement"])
        rows.append((*kind, *amounts, f"{budget['used']:.1%}"))
    terminal.say(*terminal.columns(rows))
    return terminal.OK


def _find(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Any:
    return terminal.remote(arguments, environ).get("budgets", arguments.name)


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _print(arguments, _find(arguments, environ))


def _print(arguments: argparse.Namespace, budget: dict[str, Any]) -> int:
    if arguments.json:
        terminal.say_json(budget)
        return terminal.OK
    for name, value in budget.items():
        if name.endswith("_nano"):
            terminal.say(f"{name.removesuffix('_nano'):<14} {format_usd(value)}")
        elif name in ("holders", "changes"):
            terminal.say(f"{name:<14} {len(value)}")
        elif not name.endswith("_usd"):
            terminal.say(f"{name:<14} {value if isinstance(value, str) else json.dumps(value)}")
    return terminal.OK


def _holders(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    holders = _find(arguments, environ)["holders"]
    if arguments.json:
        terminal.say_json(holders)
        return terminal.OK
    rows = [("LEASE", "STATE", "UNTIL", "HELD", "OPEN", "SETTLED", "CHARGED")]
    for lease in holders:
        until = datetime.fromtimestamp(lease["expires_at_s"], UTC).isoformat(timespec="seconds")
        amounts = [
            format_usd(lease[f"{part}_nano"]) for part in ("held", "open", "settled", "charged")
        ]
        rows.append((lease["lease"], lease["state"], until, *amounts))
    terminal.say(*terminal.columns(rows))
    return terminal.OK


def _changes(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    changes = _find(arguments, environ)["changes"]
    if arguments.json:
        terminal.say_json(changes)
        return terminal.OK
    rows = [("WHEN", "WHO", "WHAT", "AMOUNT", "WHY")]
    for change in changes:
        when = datetime.fromtimestamp(change["at_s"], UTC).isoformat(timespec="seconds")
        amount = format_usd(change["amount_nano"])
        rows.append((when, change["who"], change["kind"], amount, change["why"]))
    terminal.say(*terminal.columns(rows))
    return terminal.OK


# -- changing


def _set(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _change(arguments, environ, "limit", limit_usd=arguments.limit_usd)


def _credit(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _change(arguments, environ, "credit", amount_usd=arguments.amount_usd)


def _reset(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _change(arguments, environ, "reset")


def _release(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    billed = {} if arguments.billed is None else {"billed_usd": arguments.billed}
    return _change(arguments, environ, "release", lease=arguments.lease, **billed)


def _change(
    arguments: argparse.Namespace, environ: Mapping[str, str], action: str, **more: str
) -> int:
    who = arguments.who or terminal.operator().who
    asked = {"action": action, "who": who, "why": arguments.why, **more}
    remote = terminal.remote(arguments, environ)
    return _print(arguments, remote.post(asked, "budgets", arguments.name))
