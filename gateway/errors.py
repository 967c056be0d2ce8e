"""Refusals: what Tollway itself answers instead of a backend, as RFC 9457 problems."""

import math
from collections.abc import Mapping
from typing import Any

from gateway.ledger.types import Refusal


class Refused(Exception):  # noqa: N818 - reads as what happened
    """A request that gets a problem reply; `members` are RFC 9457 extension members."""

    def __init__(self, status: int, title: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.members = members
        self.headers: list[tuple[bytes, bytes]] = []
        self.cost_nano = 0

    @property
    def reason(self) -> str:
        """The title as one word of a closed set."""
        return self.title.lower().replace(" ", "_")

    def problem(self) -> dict[str, Any]:
        """Return the problem as an RFC 9457 object."""
        return {
            "type": f"urn:tollway:problem:{self.reason.replace('_', '-')}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }


def no_route(path: str) -> Refused:
    """404: the path is none of the routes'."""
    detail = f"no route answers {path!r}; see [[routes]] in the config"
    # `error` too: whose protocol was meant cannot be told, and some clients read only that.
    return Refused(404, "No route", detail, error=detail)


def unprocessable(field: str, why: str) -> Refused:
    """422: the request is of its protocol, and not of what its route accepts."""
    return Refused(422, "Unprocessable content", f"{field} {why}", field=field)


def no_backend(route: str, why: str, retry_after_s: int = 1) -> Refused:
    """503: every backend of the route is held to be down."""
    refused = Refused(503, "No backend", f"no backend of route {route!r} can answer: {why}")
    refused.headers.append((b"retry-after", str(retry_after_s).encode()))
    return refused


def overloaded(what: str) -> Refused:
    """503: there are as many requests as can be answered in time; another would only wait."""
    refused = Refused(503, "Overloaded", f"{what} has more to do than it can answer in time")
    refused.headers.append((b"retry-after", b"1"))
    return refused


def resting(route: str, seconds: float) -> Refused:
    """429: every backend that could answer has asked to be left alone for a while."""
    wait_s = max(1, math.ceil(seconds))
    why = f"the backends of route {route!r} limit their rate; ask again in {wait_s} s"
    refused = Refused(429, "Rate limited", why)
    refused.headers.append((b"retry-after", str(wait_s).encode()))
    return refused


def all_failed(route: str, failed: dict[str, str]) -> Refused:
    """502: the backends that were asked failed."""
    tried = "; ".join(f"{backend}: {error}" for backend, error in failed.items())
    return Refused(502, "Backends failed", f"no answer on route {route!r} ({tried})")


def credential_rejected(route: str, refused: dict[str, str]) -> Refused:
    """502: the gateway's own keys are refused; an operator has to replace them."""
    told = "; ".join(f"{backend}: {why}" for backend, why in refused.items())
    refusal = Refused(502, "Credential rejected", f"no backend of route {route!r} answers ({told})")
    refusal.headers.append((b"x-should-retry", b"false"))
    return refusal


def broken_off(error: str) -> Refused:
    """502, told inside a stream that had begun: it will not come to its end."""
    return Refused(502, "Stream broken off", error)


def beyond_all(route: str, left_out: Mapping[str, str]) -> Refused:
    """400: the request needs what every backend lacks; which, by backend."""
    lacking = "; ".join(f"{backend} {why}" for backend, why in left_out.items())
    why = f"no backend of route {route!r} can do what this request asks for ({lacking})"
    return Refused(400, "Not supported", why)


def deadline(route: str) -> Refused:
    """504: the deadline passed before an answer was there."""
    return Refused(504, "Deadline exceeded", f"no backend of route {route!r} answered in time")


def too_dear(route: str, cost_nano_max: int) -> Refused:
    """402: no backend is expected to stay below the client's own ceiling."""
    return Refused(
        402,
        "Cost ceiling",
        f"no backend of route {route!r} is sure to cost at most {cost_nano_max / 1e9:.9f} dollars",
    )


def downgraded(route: str) -> Refused:
    """402: a budget near its limit allows only calls below a price, and there are none."""
    refused = Refused(
        402,
        "Budget downgraded",
        f"a budget near its limit leaves no backend of route {route!r} that is cheap enough",
    )
    refused.headers.append((b"x-should-retry", b"false"))
    return refused


def over_budget(refusal: Refusal) -> Refused:
    """402: a budget has nothing left for any backend that could answer.

    Not 429: waiting a moment does not help, and clients that retry on 429 would storm. Money that
    other calls hold is another matter (429), and so is a ledger that cannot be asked (503): trying
    again does help.
    """
    if not refusal.by_budget:
        refused = Refused(
            503,
            "Ledger unreachable",
            f"budget {refusal.budget!r} cannot be asked, and what was leased of it is spent",
            budget=refusal.budget,
        )
        refused.headers.append((b"retry-after", b"1"))
        return refused
    if refusal.reason == "unbounded":
        return _unbounded(refusal)
    is_held = refusal.reason == "held"
    refused = Refused(
        429 if is_held else 402,
        "Budget held" if is_held else "Budget exhausted",
        f"what budget {refusal.budget!r} has left is held by calls under way; try again"
        if is_held
        else f"budget {refusal.budget!r} cannot pay for any backend that could answer",
        budget=refusal.budget,
        scope=refusal.scope,
        limit_usd=refusal.limit_nano / 1e9,
        spent_usd=refusal.spent_nano / 1e9,
        held_usd=refusal.held_nano / 1e9,
        resets_at=refusal.resets_at,
        retryable=is_held,
    )
    if is_held:
        refused.headers.append((b"retry-after", b"1"))
    refused.headers.append((b"x-should-retry", b"true" if is_held else b"false"))
    return refused


def _unbounded(refusal: Refusal) -> Refused:
    """422: nothing bounds what the call can cost, and a hard budget would have to hold it."""
    refused = Refused(
        422,
        "Cost unbounded",
        f"nothing bounds what this call can cost, and budget {refusal.budget!r} is hard: "
        f'{refusal.why}, or enforcement = "expected" of the budget',
        budget=refusal.budget,
        retryable=False,
    )
    refused.headers.append((b"x-should-retry", b"false"))
    return refused
