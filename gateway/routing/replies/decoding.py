"""Replies in content codings: read decoded here, given to clients in a coding that they take."""

from tollway.backends.http.codings import Decoded, accepts, codings, decoded
from tollway.backends.types import HttpReply
from tollway.gateway.routing.replies.stream_relay import is_stream


def readable(reply: HttpReply, accepted: bytes) -> HttpReply:
    """Return a reply without content coding; as it came, too, where its client takes the coding.

    Streams are decoded for all, since an event may be taken out of them, and errors, since what
    they quote may be hidden.
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
    """Return (reply, body) for the client: as they came where that was kept."""
    stream = reply.stream
    if isinstance(stream, Decoded) and stream.raw is not None:
        return HttpReply(reply.status, stream.headers, stream), stream.raw
    return reply, body
