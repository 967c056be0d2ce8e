"""Sends the same traffic each way, and counts the results."""

from dataclasses import dataclass

from . import budget, tally
from .client import Answer, Client, connect, drive
from .data import Images
from .stage import Stage
from .tally import Row

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured. `fixed` are the backends, cheapest first; `seen_usd` is what Tollway's
    calls cost by the servers' own count.
    """

    tollway: Row
    last_half: Row
    fixed: list[Row]
    split: Row
    hull: Row
    seen_usd: float
    budget: budget.Stopped
    answers: list[Answer]

    @property
    def best(self) -> Row:
        """The most accurate fixed backend."""
        return max(self.fixed, key=lambda row: row.accuracy)

    def document(self) -> dict[str, object]:
        """Return the table as the JSON file holds it."""
        return {"rows": tally.document([self.tollway, *self.fixed, self.split, self.hull])}


async def measure(stage: Stage) -> Report:
    """Send the traffic through Tollway, to each backend, through the split; then the budget."""
    before = await stage.calls()
    answers, tollway = await routed(stage, "tollway", "digits", feedback=True)
    after = await stage.calls()
    fixed = [await direct(stage, name) for name in stage.prices]
    _, split = await routed(stage, "90/10", "digits-split", feedback=False)
    half = answers[len(answers) // 2 :]
    return Report(
        tollway=tollway,
        last_half=Row(
            "its last half", len(half), tally.accuracy(half), sum(a.cost_usd for a in half)
        ),
        fixed=fixed,
        split=split,
        hull=Row(
            "hull",
            tollway.requests,
            tally.hull(fixed, tollway.usd_per_request),
            tollway.spend_usd,
        ),
        seen_usd=sum((after[name] - before[name]) * usd for name, usd in stage.prices.items()),
        budget=await capped(stage),
        answers=answers,
    )


async def routed(
    stage: Stage, name: str, route: str, *, feedback: bool
) -> tuple[list[Answer], Row]:
    """Send the traffic through the gateway; spend is what the gateway reports for the route."""
    async with connect(stage.url) as client:

        async def ask(image: Images, label: int) -> Answer:
            answer = await client.ask(route, image, label)
            if answer.status != 200:
                raise RuntimeError(f"{route} returned status {answer.status}")
            if feedback:
                await client.tell(answer.decision, label)
            return answer

        with stage.screen.watch(name, stage.requests) as seen:
            answers = await drive(stage.traffic(), ask, stage.concurrency, seen)
        spend_usd = await _spend_usd(client, route)
    return answers, Row(name, len(answers), tally.accuracy(answers), spend_usd)


async def direct(stage: Stage, name: str) -> Row:
    """Send the traffic to one backend itself; spend is the calls it counted, at its price."""
    price = stage.prices[name]

    async with connect(stage.servers[name].url) as client:

        async def ask(image: Images, label: int) -> Answer:
            return await client.ask(name, image, label)

        before = (await client.get("/stats"))["calls"]
        with stage.screen.watch(name, stage.requests, price) as seen:
            answers = await drive(stage.traffic(), ask, stage.concurrency, seen)
        calls = (await client.get("/stats"))["calls"] - before
    return Row(name, len(answers), tally.accuracy(answers), round(calls * price, 9))


async def capped(stage: Stage) -> budget.Stopped:
    """Exhaust the hard budget of its tenant."""
    price_nano = round(stage.prices[budget.MODEL] * NANO)
    async with connect(stage.url) as admin, connect(stage.url, budget.KEY) as tenant:
        return await budget.spend_all(admin, tenant, stage.held_out, price_nano)


async def _spend_usd(client: Client, route: str) -> float:
    spend = await client.get("/_tollway/spend")
    return float(sum(row["cost_nano"] for row in spend["by"] if row["route"] == route) / NANO)
