"""Decodes content codings of replies; clients get the original coding if they accept it."""

from tollway.backends.http.codings import Decoded, accepts, codings, decoded
from tollway.backends.types import HttpReply
from tollway.gateway.routing.replies.stream_relay import is_stream


def readable(reply: HttpReply, accepted: bytes) -> HttpReply:
    """Return a reply without content coding.

    The original is kept too if the client accepts its coding. Streams are always decoded, because
    an event may have to be removed, and so are errors, because text in them may have to be hidden.
    """
    for name, _ in reply.headers:
        if name == b"content-encoding":
            break
    else:  # nearly always (0.2 us)
        return reply
    coded = codings(reply.headers)
    if not coded:
        return reply
    as_it_came = reply.status < 400 and not is_stream(reply) and accepts(accepted, coded)
    return decoded(reply, coded, keeps=as_it_came)


def as_accepted(reply: HttpReply, body: bytes) -> tuple[HttpReply, bytes]:
    """Return (reply, body) for the client: in the original coding if that was kept."""
    stream = reply.stream
    if isinstance(stream, Decoded) and stream.raw is not None:
        return HttpReply(reply.status, stream.headers, stream), stream.raw
    return reply, body
