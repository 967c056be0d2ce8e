"""Routing on real tables: the production policy against rivals, hull and optima.

    python benchmarks/routing.py --data DIR [--only STUDY ...] [--seeds N] [--json FILE]

DIR holds tables of the two forms that `choosing/tables.py` says, at any depth. A table named `test`
is streamed after the one named `val`; of all others the second half of the stream is measured.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
from choosing import rivals, studies  # noqa: E402
from choosing.studies import Row  # noqa: E402
from choosing.tables import Table  # noqa: E402

OURS = ["lagrangian", "lagrangian/vowpal"]
RIVALS = ["epsilon_greedy", "cb_explore_adf", "linucb", "lin_thompson"]
CASCADES = {
    "ferplus": [0.2, 0.33, 0.45, 0.6],
    "expw": [0.2, 0.33, 0.5, 0.6],
    "digit": [0.2, 0.33, 0.6],
    "audiomnist": [0.1, 0.2, 0.33],
}
STUDIES = (
    "curves",
    "floors",
    "drift",
    "newcomer",
    "cascades",
    "mmlu",
    "llmdrift",
    "labels",
    "speed",
)


def main() -> None:
    args = arguments()
    found = studies.load_folder(args.data)
    python = rivals.environment(args.cache) if args.paretobandit else None
    result: dict[str, list[Row]] = {}
    for name in args.only or STUDIES:
        rows = RUN[name](args, found, python)
        result[name] = rows
        print(f"\n## {name}")
        show(rows)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
    if args.picture and "curves" in result:
        picture(result["curves"], args.picture)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder of tables")
    parser.add_argument("--only", nargs="+", choices=STUDIES, help="studies to run (all)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--no-rivals", action="store_true", help="only the product's policies")
    parser.add_argument("--paretobandit", action="store_true", help="run it too, in its own venv")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="cost-quality curves, as PNG or SVG")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tollway"
    parser.add_argument("--cache", type=Path, default=cache, help="for the rival's environment")
    return parser.parse_args()


def names(args: argparse.Namespace) -> list[str]:
    return OURS[:1] if args.no_rivals else OURS + RIVALS


def curves(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    pair = found.get("val"), found.get("test")
    if pair[0] is not None and pair[1] is not None:
        rows = studies.curves(pair[1], pair[0], names(args), args.seeds, python)
        published = dict(zip(studies.budgets_of(pair[0]).tolist(), studies.PUBLISHED, strict=True))
        for row in rows:
            row["paretobandit_published"] = published[float(row["budget_usd"])]  # type: ignore[arg-type]
        return rows
    return [
        row
        for table in found.values()
        if table.texts is not None
        for row in studies.curves(table, None, names(args), args.seeds, python)
    ]


def mmlu(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    rows = []
    for table in found.values():
        if table.texts is not None and len(table.arms) == 2:
            low, high = table.cost.mean(axis=0).tolist()
            budgets = np.array([low + share * (high - low) for share in (0.25, 0.5)])
            rows += studies.curves(table, None, names(args)[:2], args.seeds, None, budgets)
    return rows


def floors(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    return studies.floors(found["test"], found["val"], args.seeds, [0.85, 0.88, 0.90])


def drift(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    return studies.drift(found["test"], args.seeds)


def newcomer(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    return studies.newcomer(found["val_k4"], args.seeds)


def cascades(
    args: argparse.Namespace,
    found: dict[str, Table],
    python: Path | None,
    labelled: float = 1.0,
) -> list[Row]:
    return [
        row
        for name, table in found.items()
        if table.said is not None
        for row in studies.cascade(table, args.seeds, CASCADES.get(name, [0.2, 0.5, 0.8]), labelled)
    ]


def labels(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    images = {name: found[name] for name in ("ferplus", "expw") if name in found}
    rows = cascades(args, images, python, labelled=0.01)
    return rows + studies.scarce(found["test"], found["val"], args.seeds)


def llmdrift(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    return studies.llmdrift(next(args.data.rglob("drift.jsonl")), args.seeds)


def speed(args: argparse.Namespace, found: dict[str, Table], python: Path | None) -> list[Row]:
    return studies.speed()


Study = Callable[[argparse.Namespace, dict[str, Table], Path | None], list[Row]]
RUN: dict[str, Study] = {
    "curves": curves,
    "floors": floors,
    "drift": drift,
    "newcomer": newcomer,
    "cascades": cascades,
    "mmlu": mmlu,
    "llmdrift": llmdrift,
    "labels": labels,
    "speed": speed,
}


def show(rows: list[Row]) -> None:
    """Print rows as a table."""
    if not rows:
        print("no table for it in the data folder")
        return
    keys = list(rows[0])
    lines = [keys] + [[cell(row.get(key)) for key in keys] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(keys))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    sys.stdout.flush()


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " / ".join(cell(part) for part in value)
    return str(value)


def picture(rows: list[Row], path: Path) -> None:
    """Draw quality over budget."""
    import matplotlib  # noqa: PLC0415 - only where a picture is wanted

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name in dict.fromkeys(str(row["policy"]) for row in rows):
        mine = [row for row in rows if row["policy"] == name]
        axes.plot([r["budget_usd"] for r in mine], [r["quality"] for r in mine], "o-", label=name)
    first = [row for row in rows if row["policy"] == rows[0]["policy"]]
    for bound in ("hull", "group", "clairvoyant"):
        axes.plot(
            [r["budget_usd"] for r in first], [r[bound] for r in first], "--", lw=1, label=bound
        )
    axes.set_xscale("log")
    axes.set_xlabel("budget, dollars a request")
    axes.set_ylabel("mean quality")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
