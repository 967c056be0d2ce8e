"""What is kept and told of a reply to a call that carried the gateway's own credential."""

from dataclasses import replace

from backends.types import Headers, Reply
from gateway.credential import Credential, without_cookies
from gateway.metering import Verdict
from gateway.route import Backend, Inference
from gateway.turn import Attempt


def presentable(
    inference: Inference, backend: Backend, verdict: Verdict, reply: Reply, body: bytes
) -> tuple[Headers, bytes]:
    """Return what may be kept of a reply to the gateway's own credential.

    Nothing of a refusal of the key, which may quote it; no quotation of it in another error or in
    a header field; and no cookie of a session of the gateway's account, unless the route passes on
    its clients' cookies.
    """
    credential = backend.credential
    if credential is None:
        return reply.headers, body
    if verdict.refuses_key:
        return [], b""
    shared = b"cookie" not in inference.route.forward_headers
    headers = without_cookies(reply.headers) if shared else reply.headers
    headers = credential.hide_in_fields(headers)
    is_error = reply.status >= 400 or verdict.error or verdict.no_answer
    return headers, credential.hide_in(body) if is_error else body


def discreet(backend: Backend, verdict: Verdict) -> Verdict:
    """Return a verdict whose texts, which are written down and told, hold no key of ours."""
    credential = backend.credential
    if credential is None or not (verdict.error or verdict.no_answer):
        return verdict
    return replace(
        verdict,
        error=credential.hide(verdict.error),
        no_answer=credential.hide(verdict.no_answer),
    )


def vouch(credential: Credential, attempt: Attempt, now_s: float) -> None:
    """Let a credential know what a provider made of it; a failure of the server says nothing."""
    if attempt.verdict.refuses_key:
        credential.refused(attempt.status, attempt.started_s, now_s)
    elif 200 <= attempt.status < 500:
        credential.accepted(attempt.started_s)
