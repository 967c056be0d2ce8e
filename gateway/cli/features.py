"""The command `tollway features`: show, validate and erase features from outside."""

import argparse
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal

KEYS_MAX = 1000  # entities that are compared by default: their shares are known to 2 %
_VALIDATE = f"""\
examples:
  tollway features validate tollway.toml
  tollway features validate tollway.toml --feature user --keys ids.txt --json

Asks the source of each group for entities, and compares what it has with what is declared (types,
ranges) and with what requests got, as the journal has it (drift, as the population stability
index). The entities are those of the journal where it has keys, or pseudonyms that the source is
asked by; for other sources give a file of keys, one a line. At most {KEYS_MAX} are compared, unless
--sample says otherwise. Exit code 1 if anything is wrong.
"""
_USES = """\
example:
  tollway features uses tollway.toml --entity 17

The journal has, of each request, the values it got, for which purpose, and whose they were, by
pseudonym. What operators read, wrote and erased is in the audit log: see tollway audit.
"""
_ERASE = f"""\
example:
  tollway features erase --entity 17 --feature user

Erases an entity from a running gateway: its sources (those that are writable), Redis, the memory of
all gateways that share the Redis, and the gateway's own journal. Prints the proof, which is in the
audit log as well. Run it at each gateway that has a journal of its own. Without --feature, all
groups are erased. Exit code 1 if a source could not be written or a row is left.

{terminal.REMOTE}"""


def add(commands: Any) -> None:
    """Add the command."""
    summary = "show, validate and erase features from outside"
    actions = terminal.add_group(commands, "features", summary)
    shown = terminal.add(actions, "list", _list, "list the groups of a gateway", terminal.REMOTE)
    terminal.add_remote(shown)
    summary = "compare sources with their declaration and with the journal"
    validate = terminal.add(actions, "validate", _validate, summary, _VALIDATE)
    validate.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    validate.add_argument("--feature", metavar="NAME", help="only this group")
    validate.add_argument("--keys", type=Path, metavar="FILE", help="keys of entities, one a line")
    validate.add_argument(
        "--sample", type=int, default=KEYS_MAX, metavar="N", help="most entities (%(default)s)"
    )
    terminal.add_json(validate)
    summary = "list the requests that used an entity's values, from the journal"
    uses = terminal.add(actions, "uses", _uses, summary, _USES)
    uses.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    uses.add_argument("--entity", required=True, metavar="KEY", help="the entity's key")
    uses.add_argument("--feature", metavar="NAME", help="only this group")
    terminal.add_json(uses)
    summary = "erase an entity from all tiers and the journal, with proof"
    erase = terminal.add(actions, "erase", _erase, summary, _ERASE)
    erase.add_argument("--entity", required=True, metavar="KEY", help="the entity's key")
    erase.add_argument("--feature", metavar="NAME", help="only this group")
    terminal.add_remote(erase)


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    document = terminal.remote(arguments, environ).get("features")
    if arguments.json:
        terminal.say_json(document)
        return terminal.OK
    rows: list[tuple[str, ...]] = [
        ("group", "version", "source", "entities", "memory", "redis", "cold", "defaults")
    ]
    for one in document["features"]:
        answers, marks = one["answers"], one["marks"]
        defaults = sum(marks.get(mark, 0) for mark in ("absent", "late", "unavailable"))
        figures = (one["memory_entities"], *answers.values(), defaults)
        rows.append((one["name"], one["version"], one["source"], *map(str, figures)))
    terminal.say(*(terminal.columns(rows) if len(rows) > 1 else ["no groups"]))
    return terminal.OK


# -- erase


def _erase(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    remote = terminal.remote(arguments, environ)
    names = [one["name"] for one in remote.get("features")["features"]]
    if arguments.feature is not None:
        names = [arguments.feature]
    proofs = [remote.delete("features", name, arguments.entity) for name in names]
    if arguments.json:
        terminal.say_json(proofs)
    else:
        terminal.say(*(line for proof in proofs for line in _proved(proof)))
    whole = all(proof["source_erased"] and not proof["remaining"] for proof in proofs)
    return terminal.OK if whole else terminal.FAILED


def _proved(proof: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was erased, in words."""
    journal = proof["journal"]
    tiers = ", ".join(f"{tier} {count}" for tier, count in proof["tiers"].items())
    yield f"{proof['feature']}/{proof['entity']}: records erased: {tiers}"
    yield (
        f"  journal: {journal['rows_erased']} of {journal['rows_read']} rows in "
        f"{journal['segments']} segments, {proof['remaining']} left; digest {journal['digest']}"
    )
    if not proof["source_erased"]:
        yield "  the source is written by others: erase the entity there"


# -- uses


def _uses(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.settings import load  # noqa: PLC0415 - the other commands start faster
    from tollway.gateway.storage.feature_rows import rows_with_features  # noqa: PLC0415
    from tollway.gateway.wiring.features import digest_of  # noqa: PLC0415

    settings = load(arguments.file, environ)
    groups = [one for one in settings.features if arguments.feature in (None, one.name)]
    if not groups:
        return terminal.fail(terminal.USAGE, "the configuration has no such group of [[features]]")
    digests = {one.name: digest_of(one, settings)(one.name, arguments.entity) for one in groups}
    found = [
        {
            "time": row["time"],
            "id": row["id"],
            "route": row["route"],
            "tenant": row["tenant"],
            "feature": name,
            "purpose": part.get("purpose", ""),
            "mark": part["mark"],
            "version": part["version"],
            "values": part.get("values", {}),
        }
        for row in rows_with_features(settings.journal.dir)
        for name, part in row["features"].items()
        if name in digests and part.get("entity") == digests[name]
    ]
    if arguments.json:
        terminal.say_json(found)
    elif found:
        terminal.say(*terminal.columns([_use(one) for one in found]))
    else:
        terminal.say("no use of this entity is in the journal")
    return terminal.OK


def _use(one: Mapping[str, Any]) -> tuple[str, ...]:
    when = datetime.fromtimestamp(one["time"], UTC).isoformat(timespec="seconds")
    whose = (one["tenant"], one["route"], one["feature"], one["version"], one["mark"])
    return when, one["id"], *whose, one["purpose"]


# -- validate


def _validate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from tollway.gateway.settings import load  # noqa: PLC0415 - the other commands start faster

    settings = load(arguments.file, environ)
    groups = [one for one in settings.features if arguments.feature in (None, one.name)]
    if not groups:
        return terminal.fail(terminal.USAGE, "the configuration has no such group of [[features]]")
    keys = arguments.keys.read_text().split() if arguments.keys else []
    groups += [one.tried for one in groups if one.tried is not None]
    documents = [_checked(one, settings, keys, arguments.sample) for one in groups]
    if arguments.json:
        terminal.say_json(documents)
    else:
        terminal.say(*(line for document in documents for line in _told(document)))
    sound = all(not document["problems"] for document in documents)
    return terminal.OK if sound else terminal.FAILED


def _checked(group: Any, settings: Any, keys: Sequence[str], most: int) -> dict[str, Any]:
    """Return what was found of one group."""
    from tollway.gateway.features.online.model import FRESH, SourceError  # noqa: PLC0415
    from tollway.gateway.features.online.validation import examine  # noqa: PLC0415
    from tollway.gateway.storage.feature_rows import rows_with_features  # noqa: PLC0415
    from tollway.gateway.wiring.features import build_source  # noqa: PLC0415

    declared, source = group.to_group(), build_source(group)
    entities: dict[str, None] = {}
    served, versions = [], set()
    for row in rows_with_features(settings.journal.dir):
        part = row["features"].get(group.name)
        if part is None or part["mark"] != FRESH:
            continue
        served.append(part["values"])
        versions.add(part["version"])
        entities.setdefault(part["entity"])
    asked = list(keys)
    if source.by_digest or group.entities == "plain":
        asked = asked if asked and not source.by_digest else list(entities)
    problems = []
    if not asked:
        problems.append("no entity to ask for: the journal has none; give --keys FILE")
    found: Mapping[str, Mapping[str, Any]] = {}
    try:
        found = asyncio.run(_fetched(source, asked[:most], declared.batch_max))
    except (SourceError, TimeoutError) as exc:
        problems.append(f"the source does not answer: {exc or 'timeout'}")
    findings = examine(declared, list(found.values()), served)
    problems += [f"{one.feature}: {why}" for one in findings for why in one.problems]
    if versions - {declared.version}:
        older = ", ".join(sorted(versions - {declared.version}))
        versions_note = f"the journal also has version {older}"
    else:
        versions_note = ""
    return {
        "feature": group.name,
        "version": declared.version,
        "asked": len(asked[:most]),
        "known": len(found),
        "served": len(served),
        "note": versions_note,
        "values": [
            {
                "name": one.feature,
                "missing": one.missing,
                "mistyped": one.mistyped,
                "outside": one.outside,
                "psi": one.psi,
            }
            for one in findings
        ],
        "problems": problems,
    }


async def _fetched(source: Any, keys: Sequence[str], batch: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        for at in range(0, len(keys), batch):
            until_s = asyncio.get_running_loop().time() + 30.0
            found |= await source.fetch(keys[at : at + batch], until_s)
    finally:
        await source.aclose()
    return found


def _told(document: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{document['feature']} {document['version']}: the source has {document['known']} of "
        f"{document['asked']} entities; {document['served']} requests got values"
    )
    rows = [("value", "", "", "missing", "mistyped", "outside", "PSI")]
    for one in document["values"]:
        shares = [f"{one[name]:.1%}" for name in ("missing", "mistyped", "outside")]
        psi = "" if one["psi"] is None else f"{one['psi']:.3f}"
        rows.append((one["name"], "", "", *shares, psi))
    yield from terminal.columns(rows)
    if document["note"]:
        yield document["note"]
    yield from (f"problem: {problem}" for problem in document["problems"])
    yield "" if document["problems"] else "no problem found"
