"""Google's access tokens: fetched with credentials of Google Cloud, and renewed before their end.

A token lasts for an hour. It is fetched over the network, so that happens off the request path:
once when the configuration is checked, then by a periodic job. The credentials are a file (a
service account's or a user's) or the machine's own (Application Default Credentials).
"""

from collections.abc import Mapping
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.security.secrets import Stamp, sound

AHEAD_S = 300.0  # before its end: Google gives the same token until then
TIMEOUT_S = 10.0
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


class GoogleToken:
    """A secret that is renewed."""

    # The mutable state is the credentials, once they are loaded, and how many tokens they gave.

    def __init__(self, path: Path | None) -> None:
        """`path`: the file of the credentials; None: those of the machine."""
        self._path = path
        self._credentials: Any = None
        self._count = 0

    def read(self, environ: Mapping[str, str]) -> str:
        """Return the token, fetched if there is none yet; ValueError says why there is none."""
        return self.read_with_stamp()[0]

    def read_with_stamp(self) -> tuple[str, Stamp]:
        """Return the token and its number."""
        if not self._count:
            self.refresh()
        return sound(str(self._credentials.token)), (self._count, 0, 0)

    def stamp(self) -> Stamp:
        """Return the number of the token."""
        return self._count, 0, 0

    def is_due(self, wall_s: float) -> bool:
        """Return whether the token ends soon; `wall_s` in seconds since 1970."""
        expiry = getattr(self._credentials, "expiry", None)
        if expiry is None:
            return not self._count
        return bool(expiry.replace(tzinfo=UTC).timestamp() - wall_s < AHEAD_S)

    def refresh(self) -> None:
        """Fetch a token, which may take TIMEOUT_S; ValueError if there is none to have.

        The messages name no secret: those of the library name addresses and accounts.
        """
        try:
            import google.auth  # noqa: PLC0415 - an extra
            from google.auth.transport.requests import Request  # noqa: PLC0415
        except ImportError:
            raise ValueError(
                'needs a library that is not installed; run: pip install "tollway[google]"'
            ) from None
        try:
            if self._credentials is None:
                self._credentials = _default() if self._path is None else _of_file(self._path)
            self._credentials.refresh(partial(Request(), timeout=TIMEOUT_S))
        except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as exc:
            raise ValueError(f"no access token: {type(exc).__name__}: {str(exc)[:200]}") from exc
        self._count += 1


def _default() -> Any:
    import google.auth  # noqa: PLC0415

    library: Any = google.auth  # parts of it have no types
    return library.default(scopes=_SCOPES)[0]


def _of_file(path: Path) -> Any:
    """Return the credentials in a file, of a kind that lets no one else choose an address."""
    from google.oauth2 import credentials, service_account  # noqa: PLC0415

    document = orjson.loads(path.read_bytes())
    kind = document.get("type") if isinstance(document, dict) else None
    account: Any = service_account.Credentials
    user: Any = credentials.Credentials
    if kind == "service_account":
        return account.from_service_account_info(document, scopes=_SCOPES)
    if kind == "authorized_user":
        return user.from_authorized_user_info(document, scopes=_SCOPES)
    raise ValueError(
        f"type {str(kind)[:40]!r} is neither service_account nor authorized_user; for others set "
        "GOOGLE_APPLICATION_CREDENTIALS and google_default = true"
    )
