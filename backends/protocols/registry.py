"""Finds a protocol by the name that settings give it."""

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

    `options` say where in a reply its parts are: `answer`; `confidence` and
    `probabilities` (plain). Those that are None are left out. Raises ValueError for a name or an
    option that there is none of.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol = {name!r}: must be one of {', '.join(sorted(PROTOCOLS))}")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return PROTOCOLS[name](**given)
    except TypeError as exc:
        raise ValueError(f"protocol = {name!r} takes none of {', '.join(given)}") from exc
