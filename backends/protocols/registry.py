"""Looks up a protocol by its name in the settings."""

from collections.abc import Callable
from typing import Any

from tollway.backends.ports import WireProtocol
from tollway.backends.protocols.anthropic.protocol import Anthropic
from tollway.backends.protocols.gemini.protocol import Gemini
from tollway.backends.protocols.http.presets import PRESETS
from tollway.backends.protocols.http.protocol import Http
from tollway.backends.protocols.mlflow import Mlflow
from tollway.backends.protocols.oip.protocol import OpenInference
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.protocols.plain import Plain
from tollway.backends.protocols.tfserving import TfServing

PROTOCOLS: dict[str, Callable[..., WireProtocol]] = {
    "anthropic": Anthropic,
    "gemini": Gemini,
    "http": Http,
    "mlflow": Mlflow,
    "oip": OpenInference,
    "openai": OpenAI,
    "plain": Plain,
    "tfserving": TfServing,
}

LANGUAGE_MODELS = ("anthropic", "gemini", "openai")
"""Protocols of language models: a request names its model and limits its output, a reply may be
streamed, and its latency depends on its length.
"""


ANY_REPLY = ("http", "mlflow", "plain", "tfserving")
"""Protocols whose replies may have an answer, a confidence and probabilities in any place."""

PRESET = ("http", "plain")
"""Protocols that have presets."""

PRESET_NAMES = tuple(PRESETS)


def protocol(name: str, **options: Any) -> WireProtocol:
    """Return the protocol called `name`.

    `options` are the places of a reply's parts (`answer`; `confidence` and `probabilities` of
    ANY_REPLY), and what a route says of its paths (`path`, `free`, `strip`, `preset`). Options that
    are None are ignored. Raises ValueError for an unknown name or option.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol = {name!r}: must be one of {', '.join(sorted(PROTOCOLS))}")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return PROTOCOLS[name](**given)
    except TypeError as exc:
        raise ValueError(f"protocol = {name!r} does not support {', '.join(given)}") from exc
