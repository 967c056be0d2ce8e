"""Recognizes the environment variables that Kubernetes sets for services named `tollway...`.

A service called `tollway` adds `TOLLWAY_SERVICE_HOST`, `TOLLWAY_PORT_8080_TCP_ADDR` and others to
every container of its namespace (https://kubernetes.io/docs/concepts/services-networking/service/
#environment-variables). They have the gateway's prefix, but they are not settings. These variables
have single underscores after the service name and settings have double ones, so a misspelt setting
is not mistaken for one of them. The value must also have the form that Kubernetes writes.
"""

import re
from collections.abc import Iterable, Mapping

_PORT = r"[0-9]{1,5}"
_ADDRESS = r"[0-9A-Fa-f:.\[\]]+"
_URL = r"(?:tcp|udp|sctp)://.+"
_KINDS = (
    ("_SERVICE_HOST", _ADDRESS),
    ("_SERVICE_PORT(?:_[A-Z0-9_]+)?", _PORT),
    ("_PORT", _URL),
    (f"_PORT_{_PORT}_(?:TCP|UDP|SCTP)", _URL),
    (f"_PORT_{_PORT}_(?:TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
    (f"_PORT_{_PORT}_(?:TCP|UDP|SCTP)_PORT", _PORT),
    (f"_PORT_{_PORT}_(?:TCP|UDP|SCTP)_ADDR", _ADDRESS),
)
_OF_A_SERVICE = tuple(
    (re.compile(f"TOLLWAY(?:_[A-Z0-9]+)*?{name}"), re.compile(value)) for name, value in _KINDS
)


def is_of_a_service(variable: str, value: str) -> bool:
    """Return whether Kubernetes set this variable for a service, so that it is not a setting."""
    return "__" not in variable and any(
        name.fullmatch(variable) and pattern.fullmatch(value) for name, pattern in _OF_A_SERVICE
    )


def note(environ: Mapping[str, str]) -> str:
    """Return a note for the operator about such variables; empty if there are none."""
    names = sorted(name for name, value in environ.items() if is_of_a_service(name, value))
    if not names:
        return ""
    return (
        f"{_listed(names)}: set by Kubernetes for a service and not read as settings; "
        "to omit them, set enableServiceLinks: false in the pod spec"
    )


def _listed(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first
