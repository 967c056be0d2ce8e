"""Builds guards, and the programs and services that they and hooks ask."""

from urllib.parse import urlsplit, urlunsplit

from tollway.backends.http.factory import open_transport
from tollway.backends.json_path import compile_path
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.settings.signals.guard import GuardConfig
from tollway.gateway.settings.signals.hook import SignalConfig
from tollway.gateway.signals.guards import (
    AskingGuard,
    Guard,
    LengthGuard,
    PatternGuard,
    Words,
)
from tollway.gateway.signals.local_hooks import CHECKER, PATTERN_HELLO, SCHEMA_HELLO
from tollway.gateway.signals.process import LINE_BYTES_MAX, Program
from tollway.gateway.signals.service import Service

GUARD_LINE_BYTES = 8 << 20  # all texts of a request of 1 MiB, each character escaped


def build_program(
    signal: SignalConfig | GuardConfig, command: tuple[str, ...] = CHECKER
) -> Program:
    """Return the processes of a signal or guard."""
    checked = SCHEMA_HELLO if signal.kind == "schema" else PATTERN_HELLO
    hello = checked if command == CHECKER else None
    is_guard = isinstance(signal, GuardConfig)
    return Program(
        command,
        timeout_s=signal.timeout_s,
        wait_s=signal.timeout_s if is_guard else None,  # a client waits for it
        most=signal.concurrency,
        hello=hello,
        line_bytes=GUARD_LINE_BYTES if is_guard else LINE_BYTES_MAX,
    )


def build_service(one: SignalConfig | GuardConfig) -> Service:
    """Return the HTTP service of a signal or guard."""
    assert one.url is not None
    url = one.url.get_secret_value()
    origin = urlunsplit((*urlsplit(url)[:2], "", "", ""))
    transport = open_transport(origin, connections=one.concurrency, barred=is_link_local)
    wait_s = one.timeout_s if isinstance(one, GuardConfig) else None
    return Service(url, transport, timeout_s=one.timeout_s, most=one.concurrency, wait_s=wait_s)


def build_guard(one: GuardConfig) -> Guard:
    """Return a guard."""
    words, allows = Words(compile_path(one.at) if one.at else None), one.on_failure == "allow"
    if one.most is not None and one.kind == "length":
        return LengthGuard(one.name, one.most, words, one.act, one.tags, allows)
    if one.url is not None and one.kind == "service":
        service = build_service(one)
        return AskingGuard(one.name, service.ask, service.aclose, allows)
    if one.pattern is not None and one.kind == "regex":
        program = build_program(one)
        return PatternGuard(
            one.name, one.pattern, words, one.act, one.tags, one.replacement, allows, program
        )
    program = build_program(one, one.command)
    return AskingGuard(one.name, program.ask, program.aclose, allows)
