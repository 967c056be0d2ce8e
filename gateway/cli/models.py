"""`tollway models`: the versions of registered models, their stages and evidence; move an alias."""

import argparse
from collections.abc import Mapping
from typing import Any

from tollway.gateway.cli import terminal

_MORE = f"""\
examples:
  tollway models list                                       what serves and what is tried
  tollway models show digits                                versions, stages, evidence
  tollway models alias digits challenger 3 --why "better"   try version 3 by its rollout
  tollway models alias digits champion 2 --why "revert"     serve version 2 at once
  tollway models alias digits challenger none --why "bad"   stop trying

An alias is moved in the registry. The gateway follows it within registry.poll_s, whoever moves it.

{terminal.REMOTE}"""


def add(commands: Any) -> None:
    """Add the command and its actions."""
    summary = "show the versions of registered models, their stages and evidence; move an alias"
    actions = terminal.add_group(commands, "models", summary, _MORE)
    text = "list the models and the versions that serve"
    terminal.add_remote(terminal.add(actions, "list", _list, text, _MORE))
    show = terminal.add(actions, "show", _show, "show one model with its versions", _MORE)
    show.add_argument("name", help="the model's name in [[models]]")
    terminal.add_remote(show)
    text = "give the alias champion or challenger to a version"
    alias = terminal.add(actions, "alias", _alias, text, _MORE)
    alias.add_argument("name", help="the model's name in [[models]]")
    alias.add_argument("alias", choices=("champion", "challenger"))
    alias.add_argument("version", help="the version, or none to remove the alias")
    alias.add_argument("--why", required=True, help="the reason, which is recorded")
    alias.add_argument("--who", help="who makes the change (default: your login name)")
    terminal.add_remote(alias)


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    models = terminal.remote(arguments, environ).get("models")["models"]
    if arguments.json:
        terminal.say_json(models)
        return terminal.OK
    rows = [("MODEL", "BACKEND", "CHAMPION", "CHALLENGER", "NEWEST", "STATE")]
    for one in models:
        newest = one["versions"][0]["version"] if one["versions"] else "-"
        state = one["fault"] or (one["trial"]["phase"] if one["challenger"] else "")
        told = (one["champion"] or "-", one["challenger"] or "-", newest, state)
        rows.append((one["model"], one["backend"], *told))
    terminal.say(*map(_printable, terminal.columns(rows)))
    return terminal.OK


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _print(arguments, terminal.remote(arguments, environ).get("models", arguments.name))


def _alias(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    asked = {
        "alias": arguments.alias,
        "who": arguments.who or terminal.operator().who,
        "why": arguments.why,
    }
    if arguments.version != "none":
        asked["version"] = arguments.version
    remote = terminal.remote(arguments, environ)
    return _print(arguments, remote.post(asked, "models", arguments.name))


def _print(arguments: argparse.Namespace, model: dict[str, Any]) -> int:
    if arguments.json:
        terminal.say_json(model)
        return terminal.OK
    terminal.say(
        f"{model['model']}: backend {model['backend']} serves version {model['champion'] or '-'}"
    )
    if model["challenger"]:
        terminal.say(f"tries version {model['challenger']} by rollout {model['rollout']}")
    if model["fault"]:
        terminal.say(_printable(f"fault: {model['fault']}"))
    rows = [("VERSION", "STAGE", "ALIASES", "EVIDENCE")]
    for one in model["versions"]:
        figures = {**one["metrics"], **one["evidence"]}
        told = ", ".join(f"{key}={value}" for key, value in figures.items() if key != "stage")
        rows.append((one["version"], one["stage"], ",".join(one["aliases"]), told))
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    for row in rows:
        head = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        terminal.say(_printable(f"{head}  {row[3]}".rstrip()))
    return terminal.OK


def _printable(text: str) -> str:
    """Return a text that cannot move a terminal's cursor, whoever wrote it into the registry."""
    return "".join(one if one.isprintable() else " " for one in text)
