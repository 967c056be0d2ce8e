"""Entries of a cache, for its tests."""

from random import Random

from tollway.gateway.caching.entry import Entry


class Highest(Random):
    """Draws the highest number: an entry expires as early as it can."""

    def random(self) -> float:
        return 1.0 - 2.0**-53


def entry(body: bytes = b"body", tenant: str = "t", **more: object) -> Entry:
    fields: dict[str, object] = {
        "headers": [(b"content-type", b"text/plain")],
        "body": body,
        "pieces": (),
        "backend": "gpu",
        "cost_nano": 5,
        "made_s": 1000.0,
        "took_s": 1.0,
        "expires_s": 1060.0,
        "dies_s": 1100.0,
        "tenant": tenant,
        **more,
    }
    return Entry(**fields)  # type: ignore[arg-type]
