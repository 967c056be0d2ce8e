"""Reads logged feedback: a Tollway journal, VW dsjson, CSV, Parquet, or Open Bandit Dataset.

The path selects the format: a folder of `journal-*.jsonl`, or one such file, is a journal;
`.dsjson` (or any other `.json` or `.jsonl`) is Vowpal Wabbit's; a CSV with `item_id`, `click` and
`propensity_score` is the Open Bandit Dataset's; other CSV and Parquet files have the columns named
by the caller.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from tollway.gateway.storage import journal_reader
from tollway.simulations.replay import journal_rows, numbers, times
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import SCHEMA, BadLog, Log, Spool, settle
from tollway.simulations.replay.scratch import Scratch

FEEDBACK: dict[str, pl.DataType] = {
    "id": pl.String(),
    "backend": pl.String(),
    "quality": pl.Float64(),
    "taught_s": pl.Float64(),
    "fair": pl.Boolean(),
}
SETTLEMENT: dict[str, pl.DataType] = {
    "id": pl.String(),
    "settled_usd": pl.Float64(),
    "first_usd": pl.Float64(),
    "whole_s": pl.Float64(),
    "broke": pl.Boolean(),
}
TOLD: dict[str, pl.DataType] = {
    **SCHEMA,
    "quality": pl.Float64(),
    "final_quality": pl.Float64(),
    "taught_s": pl.Float64(),
}
OBD = {"item_id", "click", "propensity_score"}
OPEN_BANDIT = Columns("item_id", "propensity_score", "click", cost="", time="timestamp", latency="")
"""The columns of the Open Bandit Dataset (Saito et al. 2021, arXiv 2008.07146): clicks on items,
with the propensity of each at the position where it was shown."""
UNPRICED = "the log has no costs (--cost), so only qualities are estimated"


def read(path: Path, scratch: Scratch, columns: Columns, *, route: str | None = None) -> Log:
    """Read a log; BadLog if there is none, or if it supports no estimate."""
    if not path.exists():
        raise BadLog(f"{path} does not exist")
    if path.is_dir() or path.name.startswith("journal-"):
        return _journal(path, scratch, route)
    try:
        if path.suffix in {".json", ".jsonl", ".dsjson"}:
            log = _spooled(_dsjson(path), scratch)
            return replace(log, priced=False).noted(UNPRICED)
        scan = pl.scan_csv(path) if path.suffix == ".csv" else pl.scan_parquet(path)
        # pandas writes its row numbers to a column without a name.
        names = [name for name in scan.collect_schema().names() if name]
        if set(names) >= OBD:
            columns = OPEN_BANDIT
        return _named(scan, names, columns, scratch, path.name)
    except (pl.exceptions.PolarsError, OSError) as exc:
        first = str(exc).partition("\n")[0]
        raise BadLog(f"{path} cannot be read; it may be incomplete: {first}") from exc


# -- Tollway's journal


def _journal(path: Path, scratch: Scratch, route: str | None) -> Log:
    files = journal_reader.files([path])
    if not files:
        raise BadLog(f"{path} has no journal-*.jsonl; name the folder that the gateway writes to")
    damage = journal_reader.Damage()
    spools = {
        "decision": Spool(scratch.path, "decision", SCHEMA),
        "feedback": Spool(scratch.path, "feedback", FEEDBACK),
        "settlement": Spool(scratch.path, "settlement", SETTLEMENT),
    }
    for kind, row in journal_rows.stream(files, damage):
        spools[kind].add(row)
    if damage.bad and damage.bad == damage.lines:
        raise BadLog(f"none of the {damage.lines} lines of {path} is valid")
    decisions = _settled(spools["decision"].scan(), spools["settlement"].scan())
    feedback = spools["feedback"].scan()
    fair = feedback.filter("fair").drop("fair")
    first = _first_replies_labelled(decisions, fair)
    log = settle(_joined(decisions, fair), scratch, route=route, first=first)
    unfair = int(feedback.select((~pl.col("fair")).sum()).collect().item())
    if unfair:
        log = log.noted(
            f"{unfair} labels from audits are left out, because audits select doubtful answers; "
            "send feedback on a random sample of the requests"
        )
    if damage.bad:
        log = log.noted(f"{damage.bad} of {damage.lines} lines are cut or damaged and left out")
    return log


def _settled(decisions: pl.LazyFrame, settlements: pl.LazyFrame) -> pl.LazyFrame:
    """Return decisions with the final cost of their streams."""
    ends = settlements.unique("id", keep="first", maintain_order=True)
    joined = decisions.join(ends, on="id", how="left", maintain_order="left")
    broke = pl.col("broke").fill_null(value=False) & (pl.col("excluded") == "")
    return joined.with_columns(
        excluded=pl.when(broke).then(pl.lit("failed")).otherwise(pl.col("excluded")),
        cost_usd=pl.col("cost_usd") + pl.col("first_usd").fill_null(0.0),
        total_usd=pl.col("total_usd") + pl.col("settled_usd").fill_null(0.0),
        latency_s=pl.coalesce("whole_s", "latency_s"),
    ).drop("settled_usd", "first_usd", "whole_s", "broke")


def _joined(decisions: pl.LazyFrame, feedback: pl.LazyFrame) -> pl.LazyFrame:
    """Return decisions with the feedback on their first reply and on the reply given."""
    feedback = feedback.unique(["id", "backend"], keep="first", maintain_order=True)
    final = feedback.select("id", "backend", pl.col("quality").alias("final_quality"))
    return decisions.join(
        feedback,
        left_on=["id", "arm"],
        right_on=["id", "backend"],
        how="left",
        maintain_order="left",
    ).join(
        final,
        left_on=["id", "answered"],
        right_on=["id", "backend"],
        how="left",
        maintain_order="left",
    )


def _first_replies_labelled(decisions: pl.LazyFrame, feedback: pl.LazyFrame) -> bool:
    """Whether every escalated cascade with feedback has feedback on its first reply too.

    A true label scores every reply; a quality scores only the reply that the client got.
    """
    escalated = decisions.filter((~pl.col("kept")) & (pl.col("excluded") == ""))
    labelled = escalated.join(feedback.select("id").unique(), on="id", how="semi")
    first = labelled.join(feedback, left_on=["id", "arm"], right_on=["id", "backend"], how="anti")
    return int(first.select(pl.len()).collect().item()) == 0


# -- foreign files


def _row(
    at: int, arm: str, arms: list[str], pmf: list[float | None], **more: Any
) -> dict[str, Any]:
    quality = more.get("quality")
    return {
        "id": str(at),
        "excluded": "",
        "time": float(at),
        "route": "log",
        "tenant": "",
        "arms": arms,
        "pmf": pmf,
        "cost_hat_usd": [None] * len(arms),
        "dense": [],
        "sparse_index": [],
        "sparse_value": [],
        "arm": arm,
        "propensity": None,
        "answered": arm,
        "kept": True,
        "kept_chance": 1.0,
        "cost_usd": 0.0,
        "latency_s": 0.0,
        "total_usd": more.get("cost_usd", 0.0),
        "final_quality": quality,
        "taught_s": None if quality is None else float(at),
        **more,
    }


def _spooled(rows: Iterator[Mapping[str, Any]], scratch: Scratch) -> Log:
    spool = Spool(scratch.path, "rows", TOLD)
    for row in rows:
        spool.add(dict(row))
    return settle(spool.scan(), scratch, route=None, first=True)


def _dsjson(path: Path) -> Iterator[dict[str, Any]]:
    """Yield VW's decisions; VW's costs are negated qualities.

    Actions are named by their ids if `_multi` has them (`{"a": {"id": ...}}`), else by number.
    """
    with path.open("rb") as file:
        for at, line in enumerate(file):
            if not line.strip():
                continue
            try:
                event = orjson.loads(line)
                actions, pmf = event["a"], [float(p) for p in event["p"]]
                names = [_action(event, number) for number in actions]
                quality = -float(event["_label_cost"])
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
                raise BadLog(
                    f"{path.name} line {at + 1} is not dsjson: {exc!r}; each line needs a, p and "
                    "_label_cost"
                ) from exc
            if not names or len(names) != len(pmf):
                raise BadLog(
                    f"{path.name} line {at + 1}: a lists {len(names)} actions, p {len(pmf)} "
                    "probabilities; write one probability for each action"
                )
            if not 0.0 <= quality <= 1.0:
                raise BadLog(
                    f"{path.name} line {at + 1}: _label_cost {-quality:g} is not in [-1, 0]; "
                    "scale rewards to [0, 1] before logging"
                )
            yield _row(at, names[0], names, list(pmf), propensity=pmf[0], quality=quality)


def _action(event: Mapping[str, Any], number: int) -> str:
    actions = event.get("c", {}).get("_multi", [])
    if number <= len(actions):
        for features in actions[number - 1].values():
            if isinstance(features, dict) and "id" in features:
                return str(features["id"])
    return str(number)


def _named(
    scan: pl.LazyFrame, names: list[str], columns: Columns, scratch: Scratch, source: str
) -> Log:
    """Read a table with named columns, lazily: it may be larger than memory."""
    chances = _chances(names, columns, source)
    for option, name in (
        ("--arm", columns.arm),
        *([] if chances else [("--propensity", columns.propensity)]),
        ("--quality", columns.quality),
        *(("--features", name) for name in columns.features),
    ):
        if name not in names:
            raise BadLog(
                f"{source} has no column {name!r}; set {option} to one of its columns: "
                f"{', '.join(names[:20])}"
            )
    arm = pl.col(columns.arm).cast(pl.String)
    known = scan.select(arm.unique().sort()).collect().to_series().drop_nulls().to_list()
    if chances and (others := set(known) - chances.keys()):
        raise BadLog(
            f"{source} has the arm {min(others)!r} and no column "
            f"{columns.probabilities + min(others)!r}; write the probability of every arm"
        )
    known = sorted(chances) or known

    def has(name: str, otherwise: float) -> pl.Expr:
        return numbers.numbers(scan, name, source) if name in names else pl.lit(otherwise)

    nothing = pl.lit([None] * len(known), dtype=pl.List(pl.Float64))
    pmf = nothing
    if chances:
        each = [numbers.numbers(scan, chances[name], source).fill_null(0.0) for name in known]
        pmf = pl.concat_list(each)
        propensity = pl.coalesce(
            *(pl.when(arm == name).then(one) for name, one in zip(known, each, strict=True))
        )
    else:
        propensity = numbers.numbers(scan, columns.propensity, source)
    quality = numbers.numbers(scan, columns.quality, source)
    cost = has(columns.cost, 0.0)
    dense = [numbers.numbers(scan, name, source) for name in columns.features]
    empty = pl.lit([], dtype=pl.List(pl.Float64))
    counted = scan.with_row_index("_row")
    time = pl.col("_row").cast(pl.Float64)
    if columns.time in names:
        time = times.seconds(scan, columns.time, source)
    frame = counted.select(
        id=pl.col("_row").cast(pl.String),
        excluded=_incomplete(
            arm=arm,
            propensity=propensity,
            cost=cost,
            time=time,
            **{f"feature {name}": one for name, one in zip(columns.features, dense, strict=True)},
        ),
        time=time,
        route=pl.lit("log"),
        tenant=pl.lit(""),
        arms=pl.lit(known, dtype=pl.List(pl.String)),
        pmf=pmf,
        cost_hat_usd=nothing,
        dense=pl.concat_list(dense) if dense else empty,
        sparse_index=pl.lit([], dtype=pl.List(pl.Int64)),
        sparse_value=empty,
        arm=arm,
        propensity=propensity,
        answered=arm,
        kept=pl.lit(True),
        kept_chance=pl.lit(1.0),
        cost_usd=cost,
        latency_s=has(columns.latency, 0.0),
        total_usd=cost,
        quality=quality,
        final_quality=quality,
        taught_s=time,
    )
    log = replace(settle(frame, scratch, route=None, first=True), names=columns.features)
    if columns.cost not in names:
        return replace(log, priced=False).noted(UNPRICED)
    return log


def _chances(names: list[str], columns: Columns, source: str) -> dict[str, str]:
    """Return the columns of the arms' probabilities, by arm; none if they were not asked for."""
    prefix = columns.probabilities
    if not prefix:
        return {}
    found = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    if len(found) < 2:
        raise BadLog(
            f"{source} has {len(found)} columns that begin with {prefix!r}; --probabilities needs "
            f"one for each arm, such as {prefix}small and {prefix}large"
        )
    return found


def _incomplete(**parts: pl.Expr) -> pl.Expr:
    """Return why a row cannot be used: the first part that it lacks; empty if it is complete."""
    reasons = [
        pl.when(part.is_null()).then(pl.lit(f"without {name}")) for name, part in parts.items()
    ]
    return pl.coalesce(*reasons, pl.lit(""))
