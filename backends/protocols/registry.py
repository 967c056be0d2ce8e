"""Looks up a protocol by its name in the settings."""

from collections.abc import Callable

from tollway.backends.protocols.mlflow import Mlflow
from tollway.backends.protocols.oip.protocol import OpenInference
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.protocols.plain import Plain
from tollway.backends.types import WireProtocol

PROTOCOLS: dict[str, Callable[..., WireProtocol]] = {
    "mlflow": Mlflow,
    "oip": OpenInference,
    "openai": OpenAI,
    "plain": Plain,
}


def protocol(name: str, **options: str | None) -> WireProtocol:
    """Return the protocol called `name`.

    `options` are the places of a reply's parts: `answer`; `confidence` and `probabilities` (plain).
    Options that are None are ignored. Raises ValueError for an unknown name or option.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol = {name!r}: must be one of {', '.join(sorted(PROTOCOLS))}")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return PROTOCOLS[name](**given)
    except TypeError as exc:
        raise ValueError(f"protocol = {name!r} takes none of {', '.join(given)}") from exc
