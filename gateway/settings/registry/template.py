"""Fills the configuration's template of a version: its address, port and name at the server.

A registry may be written by many people, and a gateway sends its credentials to backends. So the
address is the configuration's: a version gives only its own name, which is short and of few
characters, and in the host part of an address only its digits.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from tollway.gateway.security import addresses

FIELDS = "`{model}`, `{version}` and `{port}`"
_FIELD = re.compile(r"\{([^{}]*)\}")
_KNOWN = frozenset({"model", "version", "port"})
VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}")
_SAMPLE = {"model": "m", "version": "1", "port": "9000"}


class BadVersion(ValueError):  # noqa: N818 - reads as what it says
    """A version that no template can be filled with."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with fields in braces."""

    text: str

    def check(self, *, is_url: bool = False) -> None:
        """Raise ValueError, with the correct form, if a field is unknown or the URL is invalid."""
        for name in _FIELD.findall(self.text):
            if name not in _KNOWN:
                raise ValueError(f"has the unknown field {{{name}}}; there are {FIELDS}")
        if is_url:
            filled = self.fill(_SAMPLE)
            addresses.check_backend_url(filled)
            if addresses.is_link_local(addresses.host_of(filled)):
                raise ValueError("is a link-local or metadata address; write the model server's")

    def fill(self, fields: dict[str, str]) -> str:
        """Return the text with its fields filled in."""
        return _FIELD.sub(lambda found: fields[found[1]], self.text)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version is served: its base URL and its name there; None: as the backend has them."""

    url: str | None
    model: str | None
    fields: dict[str, str]


def place(
    name: str,
    version: str,
    *,
    url: str | None,
    model: str | None,
    ports: tuple[int, int] | None,
) -> Place:
    """Return the place of a version. Raises BadVersion if it has none.

    Version n has the port `first + (n - 1) mod count`; so has every n-th one after it.
    """
    if VERSION.fullmatch(version) is None:
        raise BadVersion(
            f"{version[:80]!r} has more than 64 characters, or others than A-Z 0-9 _.-"
        )
    fields = {"model": name, "version": version, "port": ""}
    if ports is not None:
        if not version.isdigit() or not version.isascii():
            raise BadVersion(f"{version!r} is no number, so it has no port")
        first, last = ports
        fields["port"] = str(first + (int(version) - 1) % (last - first + 1))
    filled = None if url is None else _url(url, fields)
    return Place(filled, None if model is None else Template(model).fill(fields), fields)


def _url(template: str, fields: dict[str, str]) -> str:
    scheme, authority, path = _split(template)
    if "{version}" in authority and not fields["version"].isdigit():
        raise BadVersion(f"{fields['version']!r} is no number, so it cannot be in a host name")
    quoted = {name: quote(value, safe="") for name, value in fields.items()}
    host = Template(authority).fill(fields)
    url = f"{scheme}://{host}{Template(path).fill(quoted)}"
    try:
        addresses.check_backend_url(url)
    except ValueError as exc:
        raise BadVersion(f"{url!r} {exc}") from None
    if addresses.is_link_local(addresses.host_of(url)) or urlsplit(url).netloc != host:
        raise BadVersion(f"{url!r} is an address that the template does not allow")
    return url


def _split(template: str) -> tuple[str, str, str]:
    scheme, _, rest = template.partition("://")
    authority, slash, path = rest.partition("/")
    return scheme, authority, slash + path
