"""`tollway doctor`: examine what a gateway needs, and say what to do."""

import argparse
import asyncio
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.gateway.cli.client import ControlClient, Declined, Unreachable

_MORE = """\
examples:
  tollway doctor tollway.toml                 examine everything that costs nothing
  tollway doctor tollway.toml --calls         and make a call to each backend, with its cost
  tollway doctor tollway.toml --calls --body digits-gpu=request.json
  tollway doctor tollway.toml --bundle ticket.zip

Examines the configuration, the machine, the folders and disks, the ledger, the clocks, the
certificates, and whether each backend can be reached. Changes nothing, and may run beside the
gateway. Run it as the gateway's user, in its environment.

--calls asks each model for a few tokens, and backends of other protocols for what --body gives. You
make these calls, not the gateway: the providers bill them, and no budget counts them.

--bundle writes the findings, the configuration in effect, the installed packages and, if a gateway
runs, its events, budgets, operators' acts and metrics. Secrets are hidden; names of tenants and
addresses are not.

It ends with 1 if there is a failure; warnings alone are no failure."""

_SIGNS = {"ok": "ok", "warning": "warning", "failure": "FAILURE"}
# Files of a bundle, and where the running gateway has them.
_PARTS = {"events.json": "events", "budgets.json": "budgets", "audit.json": "audit"}


def add(commands: Any) -> None:
    """Add the command."""
    summary = "examine what a gateway needs, and say what to do"
    command = terminal.add(commands, "doctor", _doctor, summary, f"{_MORE}\n\n{terminal.REMOTE}")
    command.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    command.add_argument("--calls", action="store_true", help="make a call to each backend")
    command.add_argument(
        "--body",
        metavar="BACKEND=FILE",
        action="append",
        default=[],
        help="the body of the call to a backend",
    )
    command.add_argument("--bundle", metavar="ZIP", type=Path, help="write an archive for a ticket")
    terminal.add_remote(command)


def _doctor(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.doctor import machine  # noqa: PLC0415
    from tollway.gateway.doctor.examination import Calls, examine  # noqa: PLC0415 - imports it all
    from tollway.gateway.doctor.finding import Finding  # noqa: PLC0415
    from tollway.gateway.settings import load  # noqa: PLC0415

    settings = load(arguments.file, environ)
    names = {backend.name for backend in settings.backends}
    bodies: dict[str, bytes] = {}
    for given in arguments.body:
        name, _, path = given.partition("=")
        if name not in names or not path:
            known = ", ".join(sorted(names))
            return terminal.fail(
                terminal.USAGE, f"--body {given}: write BACKEND=FILE, with a backend of {known}"
            )
        bodies[name] = Path(path).read_bytes()
    if bodies and not arguments.calls:
        return terminal.fail(terminal.USAGE, "--body is for the calls that --calls makes: add it")

    async def found() -> list[Finding]:
        findings = []
        async for finding in examine(settings, environ, Calls(arguments.calls, bodies)):
            findings.append(finding)
            if not arguments.json:
                terminal.say(*_told(finding))
        return findings

    findings = asyncio.run(found())
    states = [finding.state for finding in findings]
    if arguments.json:
        terminal.say_json(
            {
                "ok": "failure" not in states,
                "findings": [finding.document() for finding in findings],
            }
        )
    else:
        failures, warnings = states.count("failure"), states.count("warning")
        terminal.say(f"{len(states)} examined: {failures} failures, {warnings} warnings")
    if arguments.bundle is not None:
        named = arguments.url or environ.get("TOLLWAY_URL")
        if not named and not settings.server.listen.startswith("unix:"):
            arguments.url = machine.url_here(
                settings.server.listen, secure=settings.server.tls is not None
            )
        _bundle(arguments, environ, findings, settings.effective())
    return terminal.FAILED if "failure" in states else terminal.OK


def _told(finding: Any) -> list[str]:
    lines = [f"{_SIGNS[finding.state]:8} {finding.subject}: {terminal.printable(finding.seen)}"]
    if finding.remedy:
        lines.append(f"{'':8} -> {finding.remedy}")
    return lines


def _bundle(
    arguments: argparse.Namespace, environ: Mapping[str, str], findings: Any, effective: Any
) -> None:
    from tollway.gateway.cli import config_report  # noqa: PLC0415
    from tollway.gateway.doctor import bundle  # noqa: PLC0415

    remote = terminal.remote(arguments, environ)
    parts = {name: partial(_read, remote, path) for name, path in _PARTS.items()}
    parts["metrics.txt"] = partial(_asked, lambda: remote.text("/metrics"))
    configuration = config_report.as_toml(effective)
    missing = bundle.write(arguments.bundle, findings, configuration, parts)
    terminal.fail(terminal.OK, *(f"not in {arguments.bundle}: {why}" for why in missing))
    terminal.fail(terminal.OK, f"{arguments.bundle} is written; read it before you send it")


def _read(remote: ControlClient, path: str) -> str:
    return _asked(lambda: json.dumps(remote.get(path), indent=2, ensure_ascii=False) + "\n")


def _asked(read: Any) -> str:
    try:
        return str(read())
    except (Unreachable, Declined) as exc:
        raise ValueError(str(exc)) from exc
