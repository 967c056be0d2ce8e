"""Problems: maps refusals to HTTP replies (RFC 9457), each reason with a status and title."""

from typing import Any

from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.refusals import Reason, RequestRefused

_STATUSES: dict[Reason, tuple[int, str]] = {
    "not_supported": (400, "Not supported"),
    "no_object": (404, "Object not found"),
    "cost_ceiling": (402, "Cost ceiling"),
    "budget_downgraded": (402, "Budget downgraded"),
    "budget_exhausted": (402, "Budget exhausted"),  # spent money is not a rate limit
    "budget_held": (429, "Budget held"),
    "guard_refused": (422, "Guard refused"),
    "cost_unbounded": (422, "Cost unbounded"),
    "rate_limited": (429, "Rate limited"),
    "backends_failed": (502, "Backends failed"),
    "credential_rejected": (502, "Credential rejected"),
    "no_backend": (503, "No backend"),
    "overloaded": (503, "Overloaded"),
    "ledger_unreachable": (503, "Ledger unreachable"),
    "learner_away": (503, "Learner away"),
    "not_cached": (504, "Not cached"),
    "deadline_exceeded": (504, "Deadline exceeded"),
}


class HttpProblem(Exception):  # noqa: N818 - reads as what happened
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


def no_route(path: str) -> HttpProblem:
    """Return a 404: no route has this path."""
    detail = f"no route has the path {path!r}; see [[routes]] in the configuration"
    # Add `error`: the intended protocol is unknown, and some clients read only that member.
    return HttpProblem(404, "No route", detail, error=detail)


class MethodNotAllowed(HttpProblem):
    """A 405 with the methods that a path has (RFC 9110, 15.5.6), told as `route` tells errors."""

    def __init__(self, method: str, methods: list[str], route: RoutePlan) -> None:
        allowed = ", ".join(methods)
        detail = f"this path does not support {method}, only {allowed}"
        super().__init__(405, "Method not allowed", detail)
        self.headers.append((b"allow", allowed.encode()))
        self.route = route


def administration(path: str) -> HttpProblem:
    """Return a 403: the path changes a server for everybody, or shows what others asked."""
    detail = (
        f"{path!r} administers a model server (its models, shared memory, traces, logs), which the "
        "gateway never passes on; call the server itself"
    )
    return HttpProblem(403, "Not allowed", detail, error=detail)


def unprocessable(field: str, why: str) -> HttpProblem:
    """Return a 422: the request is valid in its protocol but violates the route's schema."""
    return HttpProblem(422, "Unprocessable content", f"{field} {why}", field=field)


def broken_off(error: str) -> HttpProblem:
    """Return a 502, sent inside a stream that had begun: it broke off."""
    return HttpProblem(502, "Stream broken off", error)


def of_refusal(refused: RequestRefused) -> HttpProblem:
    """Return the HTTP problem of a refusal."""
    status, title = _STATUSES[refused.reason]
    members = dict(refused.members)
    if refused.reason in ("budget_exhausted", "budget_held", "cost_unbounded"):
        members["retryable"] = refused.retryable
    if refused.decision:
        members["decision"] = refused.decision
    problem = HttpProblem(status, title, refused.detail, **members)
    if refused.retry_after_s is not None:
        problem.headers.append((b"retry-after", b"%d" % refused.retry_after_s))
    if refused.retryable is not None:
        problem.headers.append((b"x-should-retry", b"true" if refused.retryable else b"false"))
    if refused.decision:
        problem.headers.append((b"x-tollway-decision", refused.decision.encode()))
    problem.cost_nano = refused.cost_nano
    return problem
