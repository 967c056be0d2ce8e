"""Embeds requests by a backend before they are routed, within a time limit.

A request is routed without an embedding (zeros) if there is none in time; see `own_calls`.
Embeddings are kept by tenant, so that none can tell what another has asked.

A backend's vector, of any length, is projected to 64 numbers by a fixed matrix of random signs,
which keeps distances (Achlioptas, Database-friendly random projections, J. Comput. Syst. Sci. 66,
2003).
"""

import math
from collections import OrderedDict
from functools import lru_cache
from hashlib import sha256
from random import Random

import numpy as np
import orjson
from numpy.typing import NDArray

from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.signals.own_calls import OwnCalls
from tollway.policies.types import EMBEDDING

SIGNAL = "embedding"
CHARS_MAX = 8_192  # of a text: some 2,000 tokens, which every model takes
VECTOR_MAX = 8_192  # numbers of a backend's embedding
KEPT_MAX = 4_096  # embeddings, of all tenants: ten megabytes
SCALE = 2.0  # norm of an embedding, as of static models
NONE: tuple[float, ...] = (0.0,) * EMBEDDING


class BackendEmbeddings:
    """Embeds the requests of one route."""

    # The mutable state is the embeddings that are kept, by tenant and digest of the text, the
    # latest last.

    def __init__(self, calls: OwnCalls) -> None:
        """`calls`: of the backend."""
        self._calls = calls
        self._kept: dict[str, OrderedDict[bytes, tuple[float, ...]]] = {}
        self._count = 0

    async def of(self, inference: InferenceRequest) -> tuple[float, ...]:
        """Return the embedding of a request's texts; zeros if there is none."""
        text = inference.route.features.text_of(inference.call, inference.joined)[:CHARS_MAX]
        if not text.strip():
            return NONE
        digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
        kept = self._kept.get(inference.tenant)
        if kept is not None and digest in kept:
            kept.move_to_end(digest)
            return kept[digest]
        document = {"input": text, "encoding_format": "float"}
        own = self._calls.prepared(inference, b"/v1/embeddings", document)
        if own is None:
            return NONE
        inference.own_calls.append((SIGNAL, own))
        attempt = await self._calls.made(own)
        numbers = None if attempt is None else projected(attempt.body)
        if numbers is None:
            return NONE
        self._keep(inference.tenant, digest, numbers)
        return numbers

    def _keep(self, tenant: str, digest: bytes, numbers: tuple[float, ...]) -> None:
        kept = self._kept.setdefault(tenant, OrderedDict())
        self._count += digest not in kept
        kept[digest] = numbers
        if self._count > KEPT_MAX:
            most = max(self._kept, key=lambda one: len(self._kept[one]))
            self._kept[most].popitem(last=False)
            self._count -= 1
            if not self._kept[most]:
                del self._kept[most]


def projected(body: bytes) -> tuple[float, ...] | None:
    """Return the 64 numbers of a reply of /v1/embeddings; None if it has no vector."""
    try:
        vector = orjson.loads(body)["data"][0]["embedding"]
        if not isinstance(vector, list) or not 0 < len(vector) <= VECTOR_MAX:
            return None
        array = np.asarray(vector, dtype=np.float64)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return None
    if array.ndim != 1:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        short = _signs(len(array)) @ array
        norm = math.sqrt(float(short @ short))
    if not math.isfinite(norm) or norm == 0.0:
        return None
    return tuple((short * (SCALE / norm)).round(5).tolist())


@lru_cache(maxsize=4)
def _signs(size: int) -> NDArray[np.float64]:
    """Return the matrix of a size of vectors, the same in every process and on every machine."""
    bits = Random(size).getrandbits(EMBEDDING * size)
    count = EMBEDDING * size
    packed = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), dtype=np.uint8)
    signs = np.unpackbits(packed, count=count).reshape(EMBEDDING, size)
    return signs.astype(np.float64) * 2.0 - 1.0
