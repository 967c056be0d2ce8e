"""Notes on calls that a hard budget will refuse because their backend declares no cost bound.

A hard budget reserves the maximum cost of a call. If the request does not bound that cost, the
backend's `context_tokens` and `max_output_tokens` do. Without either, the request is refused.
"""

from collections.abc import Iterator

from tollway.backends.protocols.registry import LANGUAGE_MODELS
from tollway.gateway.settings.backend import BackendConfig
from tollway.gateway.settings.budget import BudgetConfig
from tollway.gateway.settings.root import Settings


def notes(settings: Settings) -> list[str]:
    """Return a note for each backend under a hard budget that lacks a bound."""
    hard = [budget for budget in settings.budgets if budget.enforcement == "hard"]
    backends = {backend.name: backend for backend in settings.backends if backend.enabled}
    bound: dict[str, str] = {}
    for route in settings.routes:
        for budget in hard:
            for name in route.backends:
                if name in backends and _may_bind(budget, route.name, name):
                    bound.setdefault(name, budget.name)
    return [
        f'[[backends]] "{name}": under the hard budget {budget!r}, {lacking}'
        for name, budget in bound.items()
        for lacking in _lacking(backends[name])
    ]


def _may_bind(budget: BudgetConfig, route: str, backend: str) -> bool:
    scope = budget.scope
    return scope.route in (None, route) and scope.backend in (None, backend)


def _lacking(backend: BackendConfig) -> Iterator[str]:
    """Yield which calls of a backend are unbounded, and the key that would bound them."""
    if backend.device is not None:  # its calls are bounded by their time
        return
    price = backend.parsed_price().most
    is_language = backend.protocol in LANGUAGE_MODELS
    if price.input_token_nano and backend.input_tokens_max is None:
        which = (
            "requests with images, audio, files, stored conversations or server-side tools are"
            if is_language
            else "every request is"
        )
        yield f"{which} refused because nothing bounds their input; set context_tokens"
    declared = backend.max_output_tokens or backend.input_tokens_max
    if price.output_token_nano and not (is_language or declared):
        yield "every request is refused because nothing bounds its output; set max_output_tokens"
