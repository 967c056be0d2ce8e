"""The command line: `tollway COMMAND`. Each command is a function that returns its exit code."""

import argparse
import getpass
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tollway.backends.money import format_usd
from tollway.gateway.cli import (
    audit,
    doctor,
    features,
    models,
    policy,
    prices,
    rollout,
    scale,
    terminal,
    warm_up,
)
from tollway.gateway.cli import budgets as budget_commands
from tollway.gateway.cli.client import Declined, Unreachable
from tollway.gateway.security import keys
from tollway.gateway.settings.errors import ConfigError

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]

_EXAMPLES = """\
examples:
  tollway keys new                          create a key; put its hash into the configuration
  tollway check-config tollway.toml         list its problems, or print it in full
  tollway serve tollway.toml                run the gateway
  tollway doctor tollway.toml               examine what it needs, and say what to do
  tollway simulate run steady               simulate a policy on a workload
  tollway budgets list                      show what is spent and what is left
  tollway models show digits                show a registered model's versions
  tollway audit --since 7d                  show who changed a budget or the configuration
  tollway prices show openai/gpt-4o-mini    show the price of a known model
  tollway features validate tollway.toml    compare features from outside with the journal
  tollway rollout status digits-v2          show where a new version is, and what it waits for
  tollway report daily                      show the cost of each day by tenant
  tollway warmup chat --prompts FILE        start a policy from answers of all backends
  tollway policy relearn --help             relearn without some labels, such as a tenant's
  tollway gameday --help                    inject faults and observe the effect
  tollway explain ID                        explain how a request was routed; the id is
                                            x-tollway-decision in the reply
"""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a command and return its exit code; SystemExit(2) if the command line is invalid."""
    parser = _parser()
    given = list(sys.argv[1:] if argv is None else argv)
    parses_itself = given[:1] and given[0] in _PROGRAMS
    arguments = parser.parse_args(given[:1] if parses_itself else given)
    arguments.rest = given[1:]
    try:
        code = int(arguments.run(arguments, os.environ if environ is None else environ))
        sys.stdout.flush()
        return code
    except ConfigError as exc:
        return terminal.fail(terminal.USAGE, *map(str, exc.problems))
    except Unreachable as exc:
        return terminal.fail(terminal.UNREACHABLE, f"{exc}; give its address with --url")
    except BrokenPipeError:
        # The reader closed the pipe. Without this, Python would report the error again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return terminal.FAILED
    except (Declined, OSError) as exc:
        return terminal.fail(terminal.FAILED, str(exc))
    except KeyboardInterrupt:
        return terminal.fail(terminal.FAILED, "interrupted")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollway",
        description="A cost-aware routing gateway: the cheapest model that is good enough,\n"
        "under budgets that hold exactly.",
        epilog=f"{_EXAMPLES}\n{terminal.EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tollway {version('tollway')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_check_config(commands)
    for name, (run, summary) in _PROGRAMS.items():
        commands.add_parser(name, help=summary, add_help=False).set_defaults(run=run)
    _add_explain(commands)
    budget_commands.add(commands)
    audit.add(commands)
    prices.add(commands)
    policy.add(commands)
    scale.add(commands)
    doctor.add(commands)
    warm_up.add(commands, _parquet)
    models.add(commands)
    features.add(commands)
    rollout.add(commands)
    _add_keys(commands)
    _add_captures(commands)
    return parser


# -- serve


def _add_serve(commands: Any) -> None:
    more = (
        "example:\n  tollway serve tollway.toml --listen 0.0.0.0:8080 --workers 4\n\n"
        "SIGTERM finishes running requests and exits with code 0. SIGHUP reloads the\n"
        "configuration; if the new one is invalid, the current one stays in effect.\n"
    )
    command = terminal.add(commands, "serve", _serve, "serve a configuration until SIGTERM", more)
    command.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    command.add_argument("--listen", metavar="HOST:PORT", help="override server.listen")
    command.add_argument(
        "--workers", metavar="N", help="number of worker processes; overrides server.workers"
    )


def _serve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.settings import Settings, load, services  # noqa: PLC0415 - the other commands start faster

    if arguments.listen:
        environ = {**environ, "TOLLWAY_SERVER__LISTEN": arguments.listen}
    if arguments.workers:
        environ = {**environ, "TOLLWAY_SERVER__WORKERS": arguments.workers}
    # Otherwise every worker keeps idle numpy threads, for matrices of a few hundred rows.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    def read() -> Settings:
        settings = load(arguments.file, environ)
        if not settings.models:
            return settings
        from tollway.gateway.wiring.lifecycle.registry import served  # noqa: PLC0415

        return load(arguments.file, environ, served(settings))

    load(arguments.file, environ)
    from tollway.gateway.cli.serve import serve  # noqa: PLC0415 - slow to import, and not needed if the file is invalid

    return serve(read, services.note(environ))


# -- check-config


def _add_check_config(commands: Any) -> None:
    more = (
        "Prints the configuration in effect as TOML, with defaults and environment overrides and\n"
        "with secrets hidden, and the prices of each route. Starts nothing.\n\n"
        "examples:\n"
        "  tollway check-config tollway.toml\n"
        "  tollway check-config tollway.staging.toml --diff             what it changes\n"
        "  tollway check-config tollway.staging.toml --diff other.toml  against another file\n"
    )
    summary = "list the problems of a configuration, or print it in full"
    command = terminal.add(commands, "check-config", _check_config, summary, more)
    command.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    command.add_argument(
        "--diff",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="OTHER",
        help="show only the settings that differ from OTHER, by default the file that it extends",
    )
    terminal.add_json(command)


def _check_config(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.cli import config_report  # noqa: PLC0415
    from tollway.gateway.settings import hard_bounds, load, services  # noqa: PLC0415
    from tollway.gateway.settings.signals import notes as signal_notes  # noqa: PLC0415

    try:
        settings = load(arguments.file, environ)
    except ConfigError as exc:
        if not arguments.json:
            raise
        terminal.say_json(
            {"ok": False, "problems": [problem.document() for problem in exc.problems]}
        )
        return terminal.USAGE
    if arguments.diff is not None:
        return _show_difference(settings, arguments, environ)
    notes = [*hard_bounds.notes(settings), *signal_notes.notes(settings)]
    if note := services.note(environ):
        notes.append(note)
    if arguments.json:
        terminal.say_json({"ok": True, "settings": settings.effective(), "notes": notes})
        return terminal.OK
    terminal.say(config_report.as_toml(settings.effective()))
    terminal.say(*config_report.summary(settings))
    for one in notes:
        terminal.say(f"# note: {one}")
    terminal.say(f"# {arguments.file}: ok")
    return terminal.OK


def _show_difference(
    settings: Any, arguments: argparse.Namespace, environ: Mapping[str, str]
) -> int:
    from tollway.gateway.cli import config_report  # noqa: PLC0415
    from tollway.gateway.settings import load  # noqa: PLC0415

    other: Path = arguments.diff
    if not other.name:
        if settings.extends is None:
            why = f"{arguments.file} extends no file; name the one to compare: --diff OTHER"
            return terminal.fail(terminal.USAGE, why)
        other = arguments.file.parent / settings.extends
    changes = config_report.differences(load(other, environ), settings)
    if arguments.json:
        terminal.say_json({"ok": True, "from": str(other), "changes": changes})
    else:
        terminal.say(*config_report.in_words(changes), f"# {other} -> {arguments.file}")
    return terminal.OK


# -- captures


def _add_captures(commands: Any) -> None:
    more = (
        "Prints one JSON object per line: the id of the decision, route, tenant, backend, status,\n"
        "cost, prompt and reply. Reads files that were encrypted with capture.key.\n"
    )
    summary = "export the captured prompts and replies as JSON lines"
    command = terminal.add(commands, "captures", _captures, summary, more)
    command.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")


def _captures(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.settings import load  # noqa: PLC0415
    from tollway.gateway.storage import captures  # noqa: PLC0415
    from tollway.gateway.wiring.captures import build_seal  # noqa: PLC0415

    settings = load(arguments.file, environ).capture
    try:
        for line in captures.read(settings.dir, build_seal(settings)):
            terminal.say(line.decode())
    except ValueError as exc:
        return terminal.fail(terminal.FAILED, f"the captures cannot be read: {exc}")
    return terminal.OK


# -- programs beside and above the gateway, imported when they are run


def _demo(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        demo = importlib.import_module("examples.digits.demo")
    except ModuleNotFoundError as exc:
        return terminal.fail(
            terminal.FAILED,
            f"the demo cannot start: {exc}",
            "it is part of the repository, not of the package: run scripts/demo in a checkout",
        )
    return int(demo.main(arguments.rest) or terminal.OK)


def _simulate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.simulations.cli import main  # noqa: PLC0415

    return main(arguments.rest, environ)


def _report(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.reports.commands import main  # noqa: PLC0415

    return main(arguments.rest, environ)


def _journal(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.reports.journal_commands import main  # noqa: PLC0415

    return main(arguments.rest, environ)


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    from tollway.simulations import parquet  # noqa: PLC0415 - an extra, and slow to import

    return parquet.rows(path)


def _gameday(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gameday.commands import main  # noqa: PLC0415

    return main(arguments.rest)


# The commands that parse the rest of the command line themselves, --help included.
_PROGRAMS: dict[str, tuple[Command, str]] = {
    "demo": (_demo, "run real models behind a gateway and show the savings (needs a checkout)"),
    "simulate": (_simulate, "try a policy before deploying it: scenarios, journals, plans"),
    "report": (_report, "report spend and its return: days, tenants, return, bills"),
    "journal": (_journal, "list, archive and restore the segments of the journal, erase a subject"),
    "gameday": (
        _gameday,
        "inject faults between a gateway and its backends and observe the effect",
    ),
}


# -- explain


def _add_explain(commands: Any) -> None:
    summary = "explain a request: the backends offered, the choice and its cost"
    command = terminal.add(commands, "explain", _explain, summary, terminal.REMOTE)
    command.add_argument("id", help="the decision id, from x-tollway-decision in the reply")
    terminal.add_remote(command)


def _explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    story = terminal.remote(arguments, environ).get("decisions", arguments.id)
    if arguments.json:
        terminal.say_json(story)
        return terminal.OK
    when = datetime.fromtimestamp(story["time"], UTC).isoformat(timespec="milliseconds")
    tags = ", ".join(f"{name}={value}" for name, value in story["tags"].items())
    terminal.say(
        f"{story['id']}  {when}  route {story['route']}  tenant {story['tenant']}  {tags}".rstrip()
    )
    terminal.say(*(f"  {sentence}" for sentence in story["story"]))
    terminal.say(f"  Total cost: {format_usd(story['cost_nano'])}.")
    return terminal.OK


# -- keys


def _add_keys(commands: Any) -> None:
    summary = "create a key, or hash an existing one"
    actions = terminal.add_group(commands, "keys", summary)
    more = (
        "Give the key to the client and put its hash into the configuration (a tenant's key_hash,\n"
        "or admin_key_hash). If TOLLWAY_PEPPER is set, the hash uses it, and the gateway needs\n"
        "the same variable.\n"
    )
    new = terminal.add(actions, "new", _keys_new, "create a key and print it with its hash", more)
    terminal.add_json(new)
    more = "The key is read from stdin, because other users of this machine can see arguments:\n"
    more += "  tollway keys hash < key.txt\n"
    terminal.add_json(terminal.add(actions, "hash", _keys_hash, "print the hash of a key", more))


def _keys_new(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    key = keys.new_key()
    made = {"key": key, "key_hash": keys.hash_key(key, environ.get("TOLLWAY_PEPPER"))}
    if arguments.json:
        terminal.say_json(made)
    else:
        terminal.say(f"key       {made['key']}", f"key_hash  {made['key_hash']}")
    return terminal.OK


def _keys_hash(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    key = (getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key:
        return terminal.fail(terminal.USAGE, "no key on stdin; write: tollway keys hash < key.txt")
    if key.startswith(keys.PREFIX) and not keys.is_key(key):
        return terminal.fail(
            terminal.FAILED, "the key is incomplete or mistyped: its checksum is wrong"
        )
    hashed = keys.hash_key(key, environ.get("TOLLWAY_PEPPER"))
    if arguments.json:
        terminal.say_json({"key_hash": hashed})
    else:
        terminal.say(hashed)
    return terminal.OK
