"""Guards: check requests before a backend is chosen, and tag, rewrite or refuse them.

The guards of a route run one after the other; each sees what those before it have rewritten. A
route without guards never comes here.

A program or a service of the operator is sent a document, and says what to do (a program's lines
have an `id` besides):

    {"route": "chat", "tenant": "acme", "request": {...}}
    {"act": "pass"}    or    {"act": "tag", "tags": {"pii": "yes"}}
    {"act": "refuse", "why": "..."}    or    {"act": "rewrite", "request": {...}}
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from tollway.backends.errors import BadRequest
from tollway.backends.json_path import Get, texts
from tollway.backends.types import Call
from tollway.eager import as_task
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.signals.ports import HookFailed, encoded
from tollway.gateway.signals.process import Program

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 1 << 20  # of a request that guards check
TAGS_MAX = 16  # that one guard adds
TAG_CHARS_MAX = 64
DEPTH_MAX = 32  # of a request whose texts are looked at
FAILURES_LOGGED = 5
_PROMPTS = ("system", "instructions", "messages", "prompt", "input", "contents")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guard decides: `act` is pass, tag, refuse or rewrite."""

    act: str = "pass"
    why: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    request: Any = None


PASS = Finding()
Answer = Callable[[InferenceRequest], Awaitable[RequestState]]


class Guard(Protocol):
    """Checks requests."""

    @property
    def name(self) -> str:
        """The guard's name."""

    @property
    def allows_failure(self) -> bool:
        """Whether a request that cannot be checked goes on."""

    async def check(self, inference: InferenceRequest) -> Finding:
        """Return what to do with a request. Raises HookFailed if it cannot be checked."""

    async def aclose(self) -> None:
        """Release what it holds."""


class GuardCounts(Protocol):
    """Counts what guards do."""

    def guard(self, route: str, name: str, act: str) -> None:
        """Count an act."""

    def refused(self, route: str, tenant: str, reason: str) -> None:
        """Count a refused request."""


class Guards:
    """The guards of all routes."""

    # The mutable state is the number of failures that were logged.

    def __init__(self, guards: Mapping[str, Sequence[Guard]], counts: GuardCounts) -> None:
        """`guards`: by route."""
        self._guards = guards
        self._counts = counts
        self._logged = 0

    async def answer(self, answer: Answer, inference: InferenceRequest) -> RequestState:
        """Check a request, and have it answered unless it is refused."""
        await as_task()
        # A free call may go to the backends of several routes.
        for route in inference.among or (inference.route,):
            for guard in self._guards.get(route.name, ()):
                await self._pass(guard, inference, route.name)
        return await answer(inference)

    async def _pass(self, guard: Guard, inference: InferenceRequest, route: str) -> None:
        """Apply one guard. Raises RequestRefused."""
        tenant = inference.tenant
        try:
            if len(inference.call.body) > BODY_BYTES_MAX:
                raise HookFailed(f"the request has more than {BODY_BYTES_MAX} bytes")
            if not _is_readable(inference.call):
                raise HookFailed("not all of its body can be read")
            finding = await guard.check(inference)
            if finding.act == "rewrite":
                rewrite(inference, finding.request)
        except (HookFailed, BadRequest) as exc:
            self._counts.guard(route, guard.name, "failed")
            self._logged += 1
            if self._logged <= FAILURES_LOGGED:
                log.warning("route %s, guard %s: %s", route, guard.name, exc)
            if guard.allows_failure:
                return
            finding = Finding("refuse", "it could not be checked")
        if finding.act == "pass":
            return
        if finding.act != "refuse" or finding.why != "it could not be checked":
            self._counts.guard(route, guard.name, finding.act)
        if finding.act == "refuse":
            self._counts.refused(route, tenant, "guard_refused")
            why = f"guard {guard.name!r} refused the request: {finding.why}"
            raise RequestRefused("guard_refused", why, retryable=False, guard=guard.name)
        if finding.tags:
            inference.tags = {**inference.tags, **finding.tags}


def _is_readable(call: Call) -> bool:
    """Whether guards see all of a request: not if its body is no JSON, or has files in it."""
    payload = call.payload
    if call.body and (payload.data is None or payload.fault or payload.binary):
        return False
    if payload.form is None:
        return True
    values = payload.form.fields.values()
    return not any(
        isinstance(one, dict)  # the size of a file
        for value in values
        for one in (value if isinstance(value, list) else [value])
    )


def rewrite(inference: InferenceRequest, document: Any) -> None:
    """Replace a request's body.

    Raises BadRequest if its protocol cannot read the new one, HookFailed if it cannot be written.
    """
    old = inference.call
    call = Call(old.method, old.target, old.headers, encoded(document), tenant=old.tenant)
    call.caller = old.caller
    call.payload = inference.route.protocol.parse(call)
    inference.call = call


class Words:
    """Finds the texts of a request that guards look at."""

    def __init__(self, path: Get | None = None) -> None:
        self._path = path

    def __call__(self, document: Any) -> list[str]:
        """Return the texts: those at the path, or of the prompt, or of the whole document."""
        if self._path is not None:
            return texts(self._path(document))
        found: list[str] = []
        _visit(_prompt(document), found.append)
        return found

    def replaced(self, document: Any, new: Mapping[str, str]) -> Any:
        """Return a document with some of its texts replaced."""
        try:
            copy = deepcopy(document)
        except RecursionError as exc:
            raise HookFailed("the request is nested too deeply") from exc
        _swap(copy if self._path is not None else _prompt(copy), new)
        return copy


def _prompt(document: Any) -> Any:
    """Return the parts of a document that a model reads, or all of it."""
    if isinstance(document, dict):
        parts = [document[name] for name in _PROMPTS if name in document]
        if parts and not any(isinstance(part, str) for part in parts):
            return parts
    return document


def _visit(value: Any, see: Callable[[str], object], depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise HookFailed("the request is nested too deeply")
    if isinstance(value, str):
        see(value)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _visit(inner, see, depth + 1)


def _swap(value: Any, new: Mapping[str, str]) -> None:
    """Replace texts in place."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for at, inner in list(pairs):
        if isinstance(inner, str):
            value[at] = new.get(inner, inner)
        elif isinstance(inner, dict | list):
            _swap(inner, new)


@dataclass(frozen=True, slots=True)
class LengthGuard:
    """Acts on requests with too long texts."""

    name: str
    most: int
    words: Words
    act: str
    tags: Mapping[str, str]
    allows_failure: bool

    async def check(self, inference: InferenceRequest) -> Finding:
        """Return what to do with a request."""
        size = sum(map(len, self.words(inference.call.payload.data)))
        if size <= self.most:
            return PASS
        return Finding(self.act, f"it has {size} characters, more than {self.most}", self.tags)

    async def aclose(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class PatternGuard:
    """Acts on requests in whose texts an expression is found."""

    name: str
    pattern: str
    words: Words
    act: str
    tags: Mapping[str, str]
    replacement: str
    allows_failure: bool
    program: Program

    async def check(self, inference: InferenceRequest) -> Finding:
        """Return what to do with a request."""
        document = inference.call.payload.data
        old = self.words(document)
        asked = {"pattern": self.pattern, "texts": old, "replacement": self.replacement}
        result = await self.program.ask(asked, inference.tenant)
        new = result.get("texts")
        if not isinstance(new, list) or len(new) != len(old):
            raise HookFailed(f"guard {self.name!r} got {str(result)[:80]!r}")
        if not result["found"]:
            return PASS
        if self.act != "rewrite":
            return Finding(self.act, "it contains what may not be sent", self.tags)
        changed = dict(zip(old, new, strict=True))
        return Finding("rewrite", request=self.words.replaced(document, changed))

    async def aclose(self) -> None:
        """End the processes."""
        await self.program.aclose()


@dataclass(frozen=True, slots=True)
class AskingGuard:
    """An operator's own program or service."""

    name: str
    ask: Callable[[Any, str], Awaitable[Any]]
    close: Callable[[], Awaitable[None]]
    allows_failure: bool

    async def check(self, inference: InferenceRequest) -> Finding:
        """Return what it says. Raises HookFailed."""
        document = {"route": inference.route.name, "tenant": inference.tenant}
        document["request"] = inference.call.payload.data
        return finding(await self.ask(document, inference.tenant))

    async def aclose(self) -> None:
        """Release what it holds."""
        await self.close()


def finding(result: Any) -> Finding:
    """Return what a program or service decided. Raises HookFailed if it says something else."""
    act = result.get("act") if isinstance(result, dict) else None
    if act not in {"pass", "tag", "refuse", "rewrite"}:
        raise HookFailed(f'replied {str(result)[:80]!r}, not {{"act": "pass"}} or another act')
    tags = result.get("tags") or {}
    sized = isinstance(tags, dict) and len(tags) <= TAGS_MAX
    if not sized or not all(_is_tag(key) and _is_tag(value) for key, value in tags.items()):
        raise HookFailed("replied tags that are not short texts")
    if act == "rewrite" and not isinstance(result.get("request"), dict):
        raise HookFailed("rewrites without a request")
    return Finding(act, str(result.get("why", ""))[:200], tags, result.get("request"))


def _is_tag(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TAG_CHARS_MAX and value.isprintable()
