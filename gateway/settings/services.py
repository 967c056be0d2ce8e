"""Recognizes the variables that Kubernetes makes for services whose names begin with `tollway`.

A service called `tollway` gives every container of its namespace `TOLLWAY_SERVICE_HOST`,
`TOLLWAY_PORT_8080_TCP_ADDR` and others (https://kubernetes.io/docs/concepts/services-networking/
service/#environment-variables); they have our prefix, and nobody wrote them. The name of the
service has single underscores here and a setting has double ones, so a misspelt setting is not
taken for one of these. The values must be what is written for services, too.
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
    """Whether a variable was made for a service, and is no setting."""
    return "__" not in variable and any(
        name.fullmatch(variable) and said.fullmatch(value) for name, said in _OF_A_SERVICE
    )


def note(environ: Mapping[str, str]) -> str:
    """Return what an operator should know of such variables; empty where there are none."""
    found = sorted(name for name, value in environ.items() if is_of_a_service(name, value))
    if not found:
        return ""
    return (
        f"{_listed(found)}: made by Kubernetes for a service, not read as settings; "
        "enableServiceLinks: false in the pod's spec leaves them out"
    )


def _listed(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first
