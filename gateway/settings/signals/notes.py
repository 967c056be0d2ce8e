"""Notes on signals that an operator should know of before serving."""

from tollway.gateway.settings.root import Settings


def notes(settings: Settings) -> list[str]:
    """Return a note for each judge that judges its own model's answers."""
    backends = {backend.name: backend for backend in settings.backends}
    found = []
    for route in settings.routes:
        arms = {(backends[name].url, backends[name].model): name for name in route.backends}
        for signal in route.signals:
            if signal.kind != "judge" or signal.backend not in backends:
                continue
            judge = backends[signal.backend]
            same = arms.get((judge.url, judge.model))
            if judge.model is not None:
                same = same or next(
                    (name for (_, model), name in arms.items() if model == judge.model), None
                )
            if same is not None:
                found.append(
                    f'[[routes]] "{route.name}": signal {signal.name!r} lets the model of backend '
                    f"{same!r} judge its own answers, and models prefer their own; use another "
                    "model as judge"
                )
    return found
