"""Builds the capture of prompts and replies, if a share of them is to be captured."""

import re
from collections.abc import Callable
from random import Random

from tollway.gateway import settings as config
from tollway.gateway.routing.sinks import Sinks
from tollway.gateway.routing.sinks.capture import CaptureSink
from tollway.gateway.security.sealing import Seal
from tollway.gateway.storage.captures import Captures
from tollway.gateway.workers.identity import WorkerIdentity

PURPOSE = b"tollway captures"


def build_captures(
    settings: config.CaptureConfig,
    sinks: Sinks,
    identity: WorkerIdentity,
    wall: Callable[[], float],
) -> Captures | None:
    """Return the captures, with their sink added; None if nothing is captured."""
    if not settings.share:
        return None
    captures = Captures(
        settings.dir,
        bytes_max=(settings.budget_mb << 20) // identity.count,
        keep_s=settings.keep_days * 86_400,
        redact=[re.compile(pattern) for pattern in settings.redact],
        seal=build_seal(settings),
        worker=identity.index,
        wall=wall,
    )
    # A generator of its own, so that what the policies draw does not depend on the capture.
    sink = CaptureSink(
        captures, share=settings.share, bytes_max=settings.max_bytes, wall=wall, rng=Random()
    )
    sinks.add(ended=sink.ended)
    return captures


def build_seal(settings: config.CaptureConfig) -> Seal | None:
    """Return what encrypts the captures; None if they are plain."""
    key = settings.key
    return None if key is None else Seal(key.get_secret_value(), PURPOSE)
