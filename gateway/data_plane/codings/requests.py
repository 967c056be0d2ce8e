"""Decodes compressed requests, in slices and within limits.

The backend gets the decoded body without `content-encoding`: what the gateway counts and bounds is
then what the backend reads, and few servers decode requests. A body in a coding that cannot be
decoded here stays as it is: the protocol refuses it where it must be read, else it is passed on.
"""

from tollway.backends.errors import UnknownCoding
from tollway.backends.http import codings
from tollway.backends.http.decoders import decoder, installed
from tollway.backends.types import Headers
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.routing.bodies.buffers import BufferFull, RequestMemory
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.refusals import overloaded


class RequestCodings:
    """Decodes the bodies of requests."""

    def __init__(self, documents: LargeDocuments, *, decoded_bytes_max: int) -> None:
        """`documents` runs the slices of large bodies."""
        self._documents = documents
        self._decoded_bytes_max = decoded_bytes_max

    async def decoded(
        self, headers: Headers, body: bytes, memory: RequestMemory
    ) -> tuple[Headers, bytes]:
        """Return a request's fields and body without content coding, if it can be decoded.

        HttpProblem 413 or 400 if it is too large, or damaged; RequestRefused if there is no memory.
        """
        coded = codings.codings(headers)
        decodes = decoder(coded[0]) if len(coded) == 1 and body else None
        if decodes is None:
            return headers, body
        work = codings.expanded(body, decodes, self._decoded_bytes_max, memory.add)
        try:
            try:
                next(work)  # nearly all are decoded in one slice or two
                next(work)
                whole = await self._documents.run(memory.tenant, work)
            except StopIteration as end:
                whole = end.value
        except codings.TooLarge as exc:
            raise HttpProblem(413, "Content too large", f"the compressed body: {exc}") from exc
        except BufferFull as full:
            raise overloaded("this gateway") from full
        except ValueError as exc:
            raise HttpProblem(400, "Bad request", f"the compressed body: {exc}") from exc
        return [pair for pair in headers if pair[0] not in codings.UNDIGESTED], whole


def unknown_coding(exc: UnknownCoding) -> HttpProblem:
    """Return a 415 that names the codings that can be decoded (RFC 9110 15.5.16)."""
    refused = HttpProblem(415, "Unsupported media type", str(exc))
    refused.headers.append((b"accept-encoding", b", ".join(installed())))
    return refused
