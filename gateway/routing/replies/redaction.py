"""What of a reply reaches a client: without the gateway's own credential, and with the model's name
that the client asked for.
"""

from dataclasses import replace

from tollway.backends.http.codings import Decoded
from tollway.backends.types import Headers, HttpReply
from tollway.gateway.routing.metering import AttemptOutcome
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt
from tollway.gateway.security.credentials import Credential, without_cookies


def presentable(
    inference: InferenceRequest,
    backend: Target,
    outcome: AttemptOutcome,
    reply: HttpReply,
    body: bytes,
) -> tuple[Headers, bytes]:
    """Return the (headers, body) that may be kept of a reply.

    A rejection of the key is dropped completely, because it may quote the key. In other errors and
    in header fields the key is hidden. Session cookies of the gateway's account are removed, unless
    the route forwards its clients' cookies.
    """
    credential, headers = backend.credential, reply.headers
    if backend.protocol.hides and reply.status == 200:
        body = backend.protocol.hidden(inference.call.payload, reply, body)
    if backend.renames and not (isinstance(reply.stream, Decoded) and reply.stream.raw is not None):
        headers, body = backend.protocol.renamed(inference.call, headers, body)
    if credential is None:
        return headers, body
    if outcome.refuses_key:
        return [], b""
    shared = b"cookie" not in inference.route.forward_headers
    headers = without_cookies(headers) if shared else headers
    headers = credential.hide_in_fields(headers)
    is_error = reply.status >= 400 or outcome.error or outcome.no_answer
    return headers, credential.hide_in(body) if is_error else body


def discreet(backend: Target, outcome: AttemptOutcome) -> AttemptOutcome:
    """Return the outcome with our key hidden in its texts, which are recorded and reported."""
    credential = backend.credential
    if credential is None or not (outcome.error or outcome.no_answer):
        return outcome
    return replace(
        outcome,
        error=credential.hide(outcome.error),
        no_answer=credential.hide(outcome.no_answer),
    )


def vouch(credential: Credential, attempt: Attempt, now_s: float) -> None:
    """Report to a credential whether its provider accepted it; server failures say nothing."""
    if attempt.outcome.refuses_key:
        credential.refused(attempt.status, attempt.started_s, now_s)
    elif 200 <= attempt.status < 500:
        credential.accepted(attempt.started_s)
