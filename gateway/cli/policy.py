"""`tollway policy ...`: restore earlier snapshots of policies, or relearn without bad labels."""

import argparse
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollway.gateway.cli import terminal

if TYPE_CHECKING:
    from tollway.gateway.settings import Settings

_HOW = """\
These commands read and write the state and the journal of a configuration, so run them on the
gateway's machine. A running gateway applies the change when it next saves its state
(state.interval_s, 30 s by default), a stopped one when it starts. The previous state of a route is
kept as a snapshot, so a rollback can be rolled back.
"""
_SNAPSHOTS = f"""\
example:
  tollway policy snapshots tollway.toml

A running gateway keeps one snapshot per hour, for two days.

{_HOW}"""
_ROLLBACK = f"""\
example:
  tollway policy snapshots tollway.toml           list the snapshots
  tollway policy rollback tollway.toml digits.1795973412

Labels received after the snapshot are not learned again; to keep the good ones, use `relearn`.

{_HOW}"""
_RELEARN = f"""\
examples:
  tollway policy relearn tollway.toml --without tenant=acme
  tollway policy relearn tollway.toml --without tenant=acme --from 2026-11-20 --to 2026-11-22T12:00
  tollway policy relearn tollway.toml --without source=judge-2 --route digits --dry-run

Rebuilds a route's learned quality from the whole journal, without the labels that match: those of
the given tenants, sources or decisions, received between the two times (UTC if no zone is given).
Learned costs and features are kept.

{_HOW}"""


def add(commands: Any) -> None:
    """Add the command and its subcommands."""
    summary = "list or restore snapshots of learned policies, or relearn without some labels"
    actions = terminal.add_group(commands, "policy", summary)
    text = "list the snapshots of the routes' policies"
    listing = _on_file(actions, "snapshots", _snapshots, text, _SNAPSHOTS)
    listing.add_argument("--route", help="only this route")
    text = "restore an earlier snapshot of a route"
    back = _on_file(actions, "rollback", _rollback, text, _ROLLBACK)
    back.add_argument("snapshot", help="the snapshot id, from `policy snapshots`")
    text = "relearn from the journal, without some labels"
    again = _on_file(actions, "relearn", _relearn, text, _RELEARN)
    again.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="labels to leave out: tenant=NAME, source=NAME or decision=ID; may be repeated",
    )
    again.add_argument(
        "--from", dest="begin", metavar="TIME", help="leave out labels from this time on"
    )
    again.add_argument("--to", dest="end", metavar="TIME", help="leave out labels before this time")
    again.add_argument("--route", help="only this route")
    again.add_argument(
        "--dry-run", action="store_true", help="print what would change, without changing it"
    )


def _on_file(actions: Any, name: str, run: Any, text: str, more: str) -> Any:
    command = terminal.add(actions, name, run, text, more)
    command.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    terminal.add_json(command)
    return command


def _load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> "Settings":
    from tollway.gateway.settings import load  # noqa: PLC0415 - other commands start faster without

    return load(arguments.file, environ)


def _names(arguments: argparse.Namespace, settings: "Settings") -> list[str]:
    """Return the selected routes; empty if the named route is unknown."""
    names = [route.name for route in settings.routes]
    return names if arguments.route is None else [n for n in names if n == arguments.route]


def _unknown_route(arguments: argparse.Namespace, settings: "Settings") -> int:
    names = ", ".join(route.name for route in settings.routes)
    return terminal.fail(
        terminal.USAGE, f"route {arguments.route!r} is not in {arguments.file}; its routes: {names}"
    )


def _snapshots(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.storage import retained_snapshots  # noqa: PLC0415

    settings = _load(arguments, environ)
    names = _names(arguments, settings)
    if not names:
        return _unknown_route(arguments, settings)
    snapshots = [
        one for name in names for one in retained_snapshots.listed(settings.state.dir, name)
    ]
    if arguments.json:
        terminal.say_json(
            [
                {"id": one.id, "route": one.route, "time": one.time_s, "bytes": one.bytes}
                for one in snapshots
            ]
        )
        return terminal.OK
    lines = [("SNAPSHOT", "ROUTE", "TIME", "BYTES")]
    lines += [(one.id, one.route, _shown(one.time_s), str(one.bytes)) for one in snapshots]
    terminal.say(*terminal.columns(lines))
    return terminal.OK


def _rollback(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.storage import retained_snapshots, snapshot_file  # noqa: PLC0415

    settings = _load(arguments, environ)
    folder, now_s = settings.state.dir, time.time()
    everyone = [
        one for route in settings.routes for one in retained_snapshots.listed(folder, route.name)
    ]
    chosen = next((one for one in everyone if one.id == arguments.snapshot), None)
    if chosen is None:
        return terminal.fail(
            terminal.USAGE,
            f"there is no snapshot {arguments.snapshot!r}; to list them: tollway policy snapshots "
            f"{arguments.file}",
        )
    parts, time_s = snapshot_file.unpack(chosen.path.read_bytes())
    with _recorded(folder, "policy rollback", f"{chosen.route} to {chosen.id}"):
        before = _keep(folder, chosen.route, now_s)
        retained_snapshots.ask_for(folder, chosen.route, parts, now_s)
    if arguments.json:
        terminal.say_json(
            {"route": chosen.route, "snapshot": chosen.id, "time": time_s, "kept": before}
        )
        return terminal.OK
    terminal.say(
        f"Route {chosen.route} is restored to its state of {_shown(time_s)}.",
        *_taken_up(settings, before),
    )
    return terminal.OK


def _relearn(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.learning import unlearning  # noqa: PLC0415
    from tollway.gateway.storage import retained_snapshots, snapshot_file  # noqa: PLC0415
    from tollway.gateway.wiring import build_backend, build_route  # noqa: PLC0415

    try:
        without = _without(arguments)
    except ValueError as exc:
        return terminal.fail(terminal.USAGE, str(exc))
    settings = _load(arguments, environ)
    names = _names(arguments, settings)
    if not names:
        return _unknown_route(arguments, settings)
    folder, journal, now_s = settings.state.dir, settings.journal.dir, time.time()
    backends = {b.name: build_backend(b) for b in settings.backends if b.enabled}
    tables = {r.name: r for r in settings.routes}
    routes = {name: build_route(tables[name], settings, backends) for name in names}
    results, skipped = unlearning.relearn(journal, routes, without, time.time)
    documents = []
    for name, route in routes.items():
        result, parts = results[name], _fresh(route)
        path = retained_snapshots.newest(folder, name)
        policy = route.policy.save()
        result.after = unlearning.expected(journal, route)
        if path.exists():
            parts, _ = snapshot_file.unpack(path.read_bytes())
            old = build_route(tables[name], settings, backends)
            old.policy.load(parts["policy"])
            result.before = unlearning.expected(journal, old)
        parts |= {"policy": policy, **_parts_of(route)}
        before = ""
        if not arguments.dry_run:
            with _recorded(folder, "policy relearn", name, " ".join(_left_out(arguments))):
                before = _keep(folder, name, now_s)
                retained_snapshots.ask_for(folder, name, parts, now_s)
        documents.append(
            {
                "route": name,
                "learned": result.learned,
                "left_out": result.left_out,
                "expected_before": result.before,
                "expected_after": result.after,
                "kept": before,
            }
        )
    if arguments.json:
        terminal.say_json({"routes": documents, "skipped": skipped, "dry_run": arguments.dry_run})
        return terminal.OK
    for document in documents:
        _say(document)
    if skipped:
        terminal.say(f"{skipped} rows of the journal are damaged and were skipped.")
    if arguments.dry_run:
        terminal.say("Nothing was changed.")
    else:
        terminal.say(*_taken_up(settings, ""))
    return terminal.OK


def _say(document: dict[str, Any]) -> None:
    terminal.say(
        f"Route {document['route']}: {document['learned']} labels learned, "
        f"{document['left_out']} left out."
    )
    for arm, after in document["expected_after"].items():
        before = document["expected_before"].get(arm)
        was = "" if before is None else f"{before:.3f} before, "
        terminal.say(f"  {arm}: expected quality {was}{after:.3f} now")
    if document["kept"]:
        terminal.say(f"  The previous state is kept as {document['kept']}.")


def _taken_up(settings: "Settings", before: str) -> list[str]:
    lines = [f"The previous state is kept as {before}."] if before else []
    lines.append(
        "A running gateway applies this when it next saves its state, within "
        f"{settings.state.interval_s:g} s; a stopped one applies it when it starts."
    )
    return lines


def _recorded(
    folder: Path, act: str, about: str, why: str = ""
) -> contextlib.AbstractContextManager[None]:
    """Record an act of this command in the audit log."""
    from tollway.gateway.storage import audit_log  # noqa: PLC0415

    log = audit_log.AuditLog(folder / audit_log.NAME)
    return log.recorded(act, terminal.operator(), about=about, why=why)


def _left_out(arguments: argparse.Namespace) -> list[str]:
    """Return the options that say which labels are left out."""
    times = {"--from": arguments.begin, "--to": arguments.end}
    return [f"--without {one}" for one in arguments.without] + [
        f"{option} {time}" for option, time in times.items() if time
    ]


def _keep(folder: Path, route: str, now_s: float) -> str:
    """Keep a route's newest snapshot and return its id, or "" if there is none."""
    from tollway.gateway.storage import retained_snapshots  # noqa: PLC0415

    path = retained_snapshots.newest(folder, route)
    return (
        retained_snapshots.keep(folder, route, path.read_bytes(), now_s).id if path.exists() else ""
    )


def _fresh(route: Any) -> dict[str, bytes]:
    return {
        "policy": b"",
        "estimator": route.estimator.save(),
        "features": route.features.save(),
        "auditor": b"null",
    }


def _parts_of(route: Any) -> dict[str, bytes]:
    import orjson  # noqa: PLC0415

    return {
        "influence": orjson.dumps(route.influence.save()),
        "traffic": orjson.dumps(route.traffic.save()),
        "trust": orjson.dumps(route.trust.save()),
        "signalled": orjson.dumps(route.signalled.save()),
    }


def _without(arguments: argparse.Namespace) -> Any:
    """Return the filter of labels to leave out; ValueError if the options are invalid."""
    from tollway.gateway.learning.unlearning import Without  # noqa: PLC0415

    named: dict[str, set[str]] = {"tenant": set(), "source": set(), "decision": set()}
    for text in arguments.without:
        key, sign, value = text.partition("=")
        if not sign or key not in named or not value:
            raise ValueError(f"--without {text!r}: write tenant=NAME, source=NAME or decision=ID")
        named[key].add(value)
    begin = _time("--from", arguments.begin, 0.0)
    end = _time("--to", arguments.end, float("inf"))
    if not any(named.values()) and arguments.begin is None and arguments.end is None:
        raise ValueError("name the labels to leave out: --without tenant=NAME, --from or --to")
    if begin >= end:
        raise ValueError("--from must be before --to")
    return Without(
        frozenset(named["tenant"]),
        frozenset(named["source"]),
        frozenset(named["decision"]),
        begin,
        end,
    )


def _time(option: str, text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{option} {text!r} is not a time; write it like 2026-11-20 or 2026-11-20T14:30Z"
        ) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _shown(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
