"""A client of a running gateway's control plane."""

from typing import Any

from tollway.gateway.cli.client import ControlClient, Declined

_ACCEPTED = {"learned", "duplicate"}


class Client:
    """The control plane of the gateway at `url`, such as http://127.0.0.1:8080.

    `key` is the admin key, or a viewer's key for reading. Every method raises `Unreachable` if no
    gateway answers within 10 seconds, and `Declined`, with the gateway's reason, if it refuses.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self._control = ControlClient(url, key)

    def budgets(self) -> list[dict[str, Any]]:
        """Return the state of every budget: `limit_usd`, `spent_usd`, `held_usd`, `free_usd`, ...

        Each amount is also there in exact nano-dollars (`spent_nano`).
        """
        return list(self._control.get("budgets")["budgets"])

    def budget(self, name: str) -> dict[str, Any]:
        """Return the state of one budget, its holders and its last changes."""
        return dict(self._control.get("budgets", name))

    def spend(self) -> dict[str, Any]:
        """Return the cost since the gateway started: `cost_usd`, `cost_nano` and `by`.

        `by` has a row for each route, backend and tenant.
        """
        return dict(self._control.get("spend"))

    def decision(self, decision: str) -> dict[str, Any]:
        """Return what happened on one request and why; the id is in its `x-tollway-decision`."""
        return dict(self._control.get("decisions", decision))

    def feedback(
        self,
        decision: str,
        *,
        quality: float | None = None,
        correct: bool | None = None,
        label: Any = None,
        source: str = "",
        probability: float = 1.0,
    ) -> str:
        """Report how good an answer was; return `learned`, or `duplicate` if it was known already.

        Give exactly one of `quality` (0 to 1), `correct` and `label` (the true answer, which the
        route's `score` compares). `probability` is the chance with which this answer was selected
        to be judged. `Declined` if the feedback is invalid or the decision is unknown.
        """
        judged = {"quality": quality, "correct": correct, "label": label}
        document = {
            "decision": decision,
            **{name: value for name, value in judged.items() if value is not None},
            "source": source,
            "probability": probability,
        }
        # A list: then the reply is 200 whatever came of the item, with the reason in it.
        (result,) = self._control.post([document], "feedback")["results"]
        if result["result"] not in _ACCEPTED:
            raise Declined(f"{result['result']}: {result.get('detail', 'no reason given')}")
        return str(result["result"])
