"""The steps of an upgrade and of its rollback, and the table of what was seen.

In turns, on one folder: the older version serves, then this one, then the older one again, and so
on, each ended by SIGTERM or killed. Side by side: gateways of both versions, each with its folder,
share a Redis; they are replaced one by one under load, forward and back.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.redis_server import redis_server
from tests.support.until import until
from tollway.gateway.budgets.sync import REFRESH_S
from upgrade.load import DEAR_NANO, Clients, Models, Seen
from upgrade.trees import KEY, Gateway, Tree

PAUSE_S = 0.5
LATE = 20
"""Decisions in each step whose labels come only in the next one, from another version."""

CONFIG = f"""
[server]
listen = "127.0.0.1:PORT"
allow_anonymous = true
admin_key = "{KEY}"
grace_s = 1

[ledger]
url = "LEDGER"

[[backends]]
name = "cheap"
kind = "cpu"
protocol = "oip"
url = "MODELS"
model = "small"
price = {{ per_request_usd = 0.0001 }}
declared_accuracy = 0.6

[[backends]]
name = "dear"
kind = "gpu"
protocol = "oip"
url = "MODELS"
model = "large"
price = {{ per_request_usd = 0.001 }}
declared_accuracy = 0.99

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["cheap", "dear"]
context = {{ numeric = ["inputs[0].data"] }}
score = {{ exact = "outputs[0].data[0]" }}

[[budgets]]
name = "all"
limit_usd = LIMIT
window = "lifetime"
enforcement = "hard"
"""


def config(models: Models, ledger: str, limit_usd: str = "1000.0") -> str:
    """Return the configuration of each version; PORT is left to the gateway."""
    text = CONFIG.replace("LEDGER", ledger).replace("MODELS", models.url)
    return text.replace("LIMIT", limit_usd)


@dataclass(frozen=True, slots=True)
class Row:
    """What a step has come to; amounts in nano-dollars since the beginning of its part."""

    step: str
    seen: Seen
    late: int
    billed_nano: int
    spent_nano: int
    journals_nano: tuple[int, int]
    damaged: int
    learned: int
    cut: int = 0

    def faults(self) -> list[str]:
        """Return what is wrong."""
        found = []
        more = self.spent_nano - self.billed_nano
        if not 0 <= more <= self.cut * DEAR_NANO:
            found.append(f"the ledger has {more} nano-dollars more than were billed")
        if self.journals_nano[0] != self.journals_nano[1]:
            found.append(f"the versions read {self.journals_nano} nano-dollars in the journals")
        if not self.cut and self.journals_nano[1] != self.billed_nano:
            found.append(f"{self.journals_nano[1] - self.billed_nano} more in the journals")
        if self.damaged:
            found.append(f"{self.damaged} rows cannot be read")
        if self.seen.lost or self.seen.others:
            found.append(f"{self.seen.lost} requests lost, others {dict(self.seen.others)}")
        if self.seen.unknown:
            found.append(f"{self.seen.unknown} labels of unknown decisions")
        if self.late not in (0, LATE):
            found.append(f"only {self.late} of {LATE} late labels were learned from")
        if not (self.seen.answered or self.seen.declined):
            found.append("no request was answered")
        return found


@dataclass
class Table:
    """The rows, and whether all is as it must be."""

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether no step has a fault."""
        return not self.faults and not any(row.faults() for row in self.rows)

    def text(self, old: str) -> str:
        """Return the table in Markdown, and the faults below it."""
        lines = [
            f"`{old}` and this checkout:",
            "",
            "| step | answered | sent again | lost | late labels learned | labels learned | billed "
            "| ledger minus bill | journals minus bill, read by the older / this version |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            killed = row.step.endswith("load")
            ledger = "(next step)" if killed else f"{row.spent_nano - row.billed_nano:+d}"
            journals = " / ".join(f"{one - row.billed_nano:+d}" for one in row.journals_nano)
            lines.append(
                f"| {row.step} | {row.seen.answered:,} | {row.seen.moved} | {row.seen.lost} | "
                f"{row.late} | {row.learned:,} | ${row.billed_nano / 1e9:.4f} | {ledger} | "
                f"{journals} |"
            )
        lines += ["", "The last two columns are in nano-dollars.", ""]
        lines += self.faults
        lines += [f"FAULT in {row.step}: {fault}" for row in self.rows for fault in row.faults()]
        return "\n".join(lines)


async def run(old: Tree, new: Tree, folder: Path, *, clients: int, seconds: float) -> Table:
    """Run all steps."""
    table = Table()
    await in_turns(old, new, folder / "sqlite", table, clients=clients, seconds=seconds)
    with redis_server(folder / "redis") as redis:
        await side_by_side(
            old, new, folder / "two", redis.url, table, clients=clients, seconds=seconds
        )
    with redis_server(folder / "redis-hard") as redis:
        await to_the_limit(old, new, folder / "hard", redis.url, table, clients=clients)
    return table


async def in_turns(
    old: Tree, new: Tree, folder: Path, table: Table, *, clients: int, seconds: float
) -> None:
    """One folder with a SQLite ledger, from version to version, also after a crash."""
    plan = [(old, signal.SIGTERM), (new, signal.SIGTERM), (old, signal.SIGTERM)]
    plan += [(new, signal.SIGKILL), (old, signal.SIGKILL), (new, signal.SIGTERM)]
    late: list[str] = []
    learned, cut = 0, 0
    with Models().serving() as models:
        text = config(models, "sqlite:///tollway.db")
        for number, (tree, end) in enumerate(plan):
            gateway = Gateway(tree, folder, text)
            try:
                await gateway.start()
                before = await gateway.learned()
                # A killed gateway may lack what it learned after its last save: it is read again
                # from the journal. What was learned is never less than before.
                if before < learned:
                    table.faults.append(f"FAULT: {tree.name} starts with {before} of {learned}")
                taught = await gateway.label(late) if late else 0
                late = await gateway.send(LATE)
                load = Clients([gateway], clients)
                seen = await load.for_s(seconds)
                learned = await gateway.learned()
                spent = 0
                if end == signal.SIGTERM:
                    spent = await settled(gateway)
                    await gateway.end(end)
                else:
                    await killed(gateway, clients)
                    cut += clients
                    spent = models.billed_nano  # what it had spent, the next step sees
            finally:
                gateway.kill()
            how = "" if end == signal.SIGTERM else ", killed under load"
            name = f"{number + 1}. SQLite: {'older' if tree is old else 'this'} version{how}"
            money = read_by_both(old, new, folder)
            table.rows.append(
                Row(name, seen, taught, models.billed_nano, spent, *money, learned, cut)
            )


async def killed(gateway: Gateway, clients: int) -> None:
    """Kill a gateway while clients send; what they had sent is cut."""
    load = Clients([gateway], clients)
    tasks = load.started()
    await until(lambda: load.seen.answered >= 5 * clients, within_s=60)
    await gateway.end(signal.SIGKILL)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def side_by_side(
    old: Tree, new: Tree, folder: Path, redis: str, table: Table, *, clients: int, seconds: float
) -> None:
    """Two gateways on one Redis, replaced one by one under load, and back."""
    with Models().serving() as models:
        text = config(models, redis)
        async with both(old, old, folder, text) as gateways:
            plan = [(0, new, "one replaced"), (1, new, "both replaced")]
            plan += [(0, old, "one rolled back"), (1, old, "both rolled back")]
            for at, tree, name in plan:
                load = Clients(gateways, clients)
                tasks = load.started()
                await asyncio.sleep(seconds / 2)
                leaving = gateways[at]
                # As an endpoint does: it is taken out, and clients go on with it for a moment.
                process = asyncio.create_task(leaving.end())
                await asyncio.sleep(0.5)
                load.gateways.remove(leaving)
                await process
                arriving = gateways[at] = Gateway(tree, leaving.folder, text)
                await arriving.start()
                load.gateways.append(arriving)
                await asyncio.sleep(seconds / 2)
                seen = await load.stop(tasks)
                spent = await settled(gateways[0])
                money = read_by_both(old, new, *(one.folder for one in gateways))
                learned = sum([await one.learned() for one in gateways])
                table.rows.append(
                    Row(
                        f"Redis: {name}",
                        seen,
                        0,
                        models.billed_nano,
                        spent,
                        *money,
                        learned,
                    )
                )


async def to_the_limit(
    old: Tree, new: Tree, folder: Path, redis: str, table: Table, *, clients: int
) -> None:
    """Both versions spend one hard budget to its end, at once."""
    with Models().serving() as models:
        text = config(models, redis, "0.25")
        async with both(old, new, folder, text) as gateways:
            load = Clients(gateways, clients)
            tasks = load.started()
            await until(lambda: load.seen.declined >= 10 * clients, within_s=120)
            seen = await load.stop(tasks)
            spent = await settled(gateways[0])
            if spent > 250_000_000 or spent < 250_000_000 - DEAR_NANO:
                table.faults.append(f"FAULT: {spent} nano-dollars of the hard limit were spent")
            money = read_by_both(old, new, *(one.folder for one in gateways))
            learned = sum([await one.learned() for one in gateways])
            table.rows.append(
                Row(
                    "Redis: both, to the end of a hard budget",
                    seen,
                    0,
                    models.billed_nano,
                    spent,
                    *money,
                    learned,
                )
            )


@asynccontextmanager
async def both(one: Tree, other: Tree, folder: Path, text: str) -> AsyncIterator[list[Gateway]]:
    """Run two gateways with a folder each; the list may be changed meanwhile."""
    gateways = [Gateway(one, folder / "a", text), Gateway(other, folder / "b", text)]
    try:
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        yield gateways
        await asyncio.gather(*(gateway.end() for gateway in gateways))
    finally:
        for gateway in gateways:
            gateway.kill()


async def settled(gateway: Gateway) -> int:
    """Return what is spent, in nano-dollars, once all gateways have told the ledger.

    Without exchanges of its own a gateway reads a budget again every REFRESH_S: an amount is the
    last one only when it has stayed for longer.
    """
    found, same = -1, 0
    for _ in range(100):
        before, found = found, await gateway.spent()
        same = same + 1 if found == before else 0
        if same * PAUSE_S > REFRESH_S:
            break
        await asyncio.sleep(PAUSE_S)
    return found


def read_by_both(old: Tree, new: Tree, *folders: Path) -> tuple[tuple[int, int], int]:
    """Return the cost that each version reads in the journals, and how many rows are damaged."""
    read = [tree.journal(*folders) for tree in (old, new)]
    return (read[0]["cost_nano"], read[1]["cost_nano"]), sum(one["damaged"] for one in read)
