"""The command line: `tollway COMMAND`. Each command is a function that returns its exit code."""

import argparse
import getpass
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateway import auth
from gateway.problems import ConfigError
from gateway.remote import Declined, Remote, Unreachable

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3

_EXIT_CODES = """\
exit codes:
  0  done
  1  failed; what failed is said on stderr
  2  the command line or the configuration is wrong; every problem is listed on stderr
  3  no gateway answered at the address given
"""

_EXAMPLES = """\
a first run:
  tollway keys new                          make a key; put its hash into the configuration
  tollway check-config tollway.toml         see what is wrong with it, or what it comes to
  tollway serve tollway.toml                serve it
  tollway budgets list                      see what is spent and what is left
  tollway explain ID                        see why a request went where it went; its id is
                                            the reply's x-tollway-decision
"""

_REMOTE = """\
The gateway's address is --url or TOLLWAY_URL; its admin key TOLLWAY_KEY or --key (which others on
this machine can see in the list of processes).
"""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a command and return its exit code; SystemExit(2) where the command line is wrong."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.run is not _demo:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        code = int(arguments.run(arguments, os.environ if environ is None else environ))
        sys.stdout.flush()
        return code
    except ConfigError as exc:
        return _fail(USAGE, *map(str, exc.problems))
    except Unreachable as exc:
        return _fail(UNREACHABLE, f"{exc}; give its address with --url")
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this the exit would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (Declined, OSError) as exc:
        return _fail(FAILED, str(exc))
    except KeyboardInterrupt:
        return _fail(FAILED, "interrupted")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollway",
        description="A cost-aware routing gateway: the cheapest model that is good enough,\n"
        "under budgets that hold exactly.",
        epilog=f"{_EXAMPLES}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tollway {version('tollway')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_check_config(commands)
    _add_demo(commands)
    _add_explain(commands)
    _add_budgets(commands)
    _add_keys(commands)
    return parser


def _add(commands: Any, name: str, run: Any, summary: str, more: str = "") -> Any:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"{more}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


# -- serve


def _add_serve(commands: Any) -> None:
    more = "example:\n  tollway serve tollway.toml --listen 0.0.0.0:8080\n"
    command = _add(commands, "serve", _serve, "serve a configuration until SIGTERM", more)
    command.add_argument("file", type=Path, help="the configuration, such as tollway.toml")
    command.add_argument("--listen", metavar="HOST:PORT", help="instead of the configuration's")


def _serve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from gateway.settings import load  # noqa: PLC0415 - the other commands start faster without

    if arguments.listen:
        environ = {**environ, "TOLLWAY_SERVER__LISTEN": arguments.listen}
    settings = load(arguments.file, environ)
    from gateway.wiring import serve  # noqa: PLC0415 - slower still, and in vain with a bad file

    serve(settings)
    return OK


# -- check-config


def _add_check_config(commands: Any) -> None:
    more = (
        "Prints the configuration with its defaults and what the environment overrides, as TOML,\n"
        "secrets hidden, and what each route may cost. Starts nothing.\n"
    )
    summary = "say what is wrong with a configuration, or what it comes to"
    command = _add(commands, "check-config", _check_config, summary, more)
    command.add_argument("file", type=Path, help="the configuration, such as tollway.toml")
    _add_json(command)


def _check_config(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from gateway import effective  # noqa: PLC0415
    from gateway.settings import load  # noqa: PLC0415

    try:
        settings = load(arguments.file, environ)
    except ConfigError as exc:
        if not arguments.json:
            raise
        _say_json({"ok": False, "problems": [problem.document() for problem in exc.problems]})
        return USAGE
    if arguments.json:
        _say_json({"ok": True, "settings": settings.effective()})
        return OK
    _say(effective.as_toml(settings.effective()))
    _say(*effective.summary(settings))
    _say(f"# {arguments.file}: ok")
    return OK


# -- demo


def _add_demo(commands: Any) -> None:
    more = "All that follows is passed on:\n  tollway demo --keep\n  tollway demo --help\n"
    command = commands.add_parser(
        "demo",
        help="run real models behind a gateway, and show what is saved (needs a checkout)",
        add_help=False,
        epilog=more,
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        demo = importlib.import_module("examples.digits.demo")
    except ModuleNotFoundError as exc:
        return _fail(
            FAILED,
            f"the demo cannot start: {exc}",
            "it comes with the repository, not with the package: run scripts/demo in a checkout",
        )
    return int(demo.main(arguments.rest) or OK)


# -- explain


def _add_explain(commands: Any) -> None:
    summary = "tell what a request was offered, why that backend, and what it has cost"
    command = _add(commands, "explain", _explain, summary, _REMOTE)
    command.add_argument("id", help="the decision's id: the reply's x-tollway-decision")
    _add_remote(command)


def _explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    told = _remote(arguments, environ).get("decisions", arguments.id)
    if arguments.json:
        _say_json(told)
        return OK
    when = datetime.fromtimestamp(told["time"], UTC).isoformat(timespec="milliseconds")
    tags = ", ".join(f"{name}={value}" for name, value in told["tags"].items())
    _say(f"{told['id']}  {when}  route {told['route']}  tenant {told['tenant']}  {tags}".rstrip())
    _say(*(f"  {sentence}" for sentence in told["story"]))
    _say(f"  In all: {_usd(told['cost_nano'])}.")
    return OK


# -- budgets


def _add_budgets(commands: Any) -> None:
    summary = "show what each budget has spent, holds and has left"
    parser = commands.add_parser("budgets", help=summary, description=summary)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_remote(_add(actions, "list", _budgets_list, "list all budgets", _REMOTE))
    show = _add(actions, "show", _budgets_show, "show all there is to know of one", _REMOTE)
    show.add_argument("name", help="the budget's name")
    _add_remote(show)


def _budgets_list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    budgets = _remote(arguments, environ).get("budgets")["budgets"]
    if arguments.json:
        _say_json(budgets)
        return OK
    rows = [("BUDGET", "WINDOW", "ENFORCED", "LIMIT", "SPENT", "HELD", "FREE", "USED")]
    for budget in budgets:
        amounts = [_usd(budget[f"{part}_nano"]) for part in ("limit", "spent", "held", "free")]
        kind = (budget["name"], budget["window"], budget["enforcement"])
        rows.append((*kind, *amounts, f"{budget['used']:.1%}"))
    _say(*_columns(rows))
    return OK


def _budgets_show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    budgets = _remote(arguments, environ).get("budgets")["budgets"]
    found = next((budget for budget in budgets if budget["name"] == arguments.name), None)
    if found is None:
        names = ", ".join(budget["name"] for budget in budgets) or "none"
        return _fail(FAILED, f"no budget is named {arguments.name!r}; there are: {names}")
    if arguments.json:
        _say_json(found)
        return OK
    for name, value in found.items():
        if name.endswith("_nano"):
            _say(f"{name.removesuffix('_nano'):<14} {_usd(value)}")
        elif not name.endswith("_usd"):
            _say(f"{name:<14} {value if isinstance(value, str) else json.dumps(value)}")
    return OK


# -- keys


def _add_keys(commands: Any) -> None:
    summary = "make a key, or hash one that there is"
    parser = commands.add_parser("keys", help=summary, description=summary)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    more = (
        "The key goes to whoever calls, its hash into the configuration (a tenant's key_hash, or\n"
        "admin_key_hash). With TOLLWAY_PEPPER set the hash is made with it, and the gateway\n"
        "needs the same variable.\n"
    )
    new = _add(actions, "new", _keys_new, "make a key and print it with its hash", more)
    _add_json(new)
    more = "The key is read from stdin, for arguments are seen by others on this machine:\n"
    more += "  tollway keys hash < key.txt\n"
    _add_json(_add(actions, "hash", _keys_hash, "print the hash of a key", more))


def _keys_new(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    key = auth.new_key()
    made = {"key": key, "key_hash": auth.hash_key(key, environ.get("TOLLWAY_PEPPER"))}
    if arguments.json:
        _say_json(made)
    else:
        _say(f"key       {made['key']}", f"key_hash  {made['key_hash']}")
    return OK


def _keys_hash(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    key = (getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key:
        return _fail(USAGE, "there is no key on stdin; write: tollway keys hash < key.txt")
    if key.startswith(auth.PREFIX) and not auth.is_key(key):
        return _fail(FAILED, "the key was not copied whole, or is mistyped: its checksum is wrong")
    hashed = auth.hash_key(key, environ.get("TOLLWAY_PEPPER"))
    if arguments.json:
        _say_json({"key_hash": hashed})
    else:
        _say(hashed)
    return OK


# -- shared


def _add_json(command: Any) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_remote(command: Any) -> None:
    _add_json(command)
    command.add_argument("--url", help="the gateway's address (http://127.0.0.1:8080)")
    command.add_argument("--key", help="the admin key; better set as TOLLWAY_KEY")


def _remote(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Remote:
    url = arguments.url or environ.get("TOLLWAY_URL") or "http://127.0.0.1:8080"
    return Remote(url, arguments.key or environ.get("TOLLWAY_KEY"))


def _usd(nano: int) -> str:
    """Return nano-dollars as dollars, exactly: at least two decimals, at most nine."""
    whole, rest = divmod(abs(nano), 10**9)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}${whole}.{decimals}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # The first three columns are words, the others amounts: these end at the same place.
    padded = [
        [cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in enumerate(row)]
        for row in (zip(row, widths, strict=True) for row in rows)
    ]
    return ["  ".join(cells).rstrip() for cells in padded]


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _say_json(document: Any) -> None:
    _say(json.dumps(document, indent=2, ensure_ascii=False))


def _fail(code: int, *lines: str) -> int:
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return code
