"""Reads what a policy is warmed up from: prompts, tables of qualities, journals, captures.

Each becomes an iterator of documents, one per request: `request` (or `context`), and what is known
of the answers: `qualities` by backend, an `answer`, a `regex`, a `schema`.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tollway.gateway.storage import journal_reader
from tollway.gateway.storage.journal_format import Row

MODEL = "warm-up"  # the name of the model in a request; a backend gets its own
PROMPT_NAMES = ("prompt", "question", "input", "query")
Document = dict[str, Any]
ReadRows = Callable[[Path], Iterator[dict[str, Any]]]


class BadFile(ValueError):  # noqa: N818 - reads as what happened
    """A file that cannot be used; the message says why and what to write."""


def prompts(path: Path, answers: Path | None = None) -> Iterator[Document]:
    """Yield the requests of a file: a prompt per line, or JSON lines; `answers`: one per line."""
    given = answers.read_text().splitlines() if answers is not None else None
    for number, line in enumerate(_lines(path)):
        row = _parsed(path, number, line) if path.suffix in (".jsonl", ".json") else line
        document = {"prompt": row} if isinstance(row, str) else row
        if not isinstance(document, dict):
            raise BadFile(f"{path}: row {number + 1} is neither a text nor an object")
        made: Document = {"request": _request(path, number, document)}
        if document.get("max_tokens") is not None:
            made["request"].setdefault("max_tokens", document["max_tokens"])
        for name in ("answer", "regex", "schema"):
            if document.get(name) is not None:
                made[name] = document[name]
        if given is not None:
            if number >= len(given):
                raise BadFile(f"{answers}: has {len(given)} lines, fewer than {path} has prompts")
            made["answer"] = given[number]
        yield made


def captures(path: Path) -> Iterator[Document]:
    """Yield the requests of exported captures (`tollway captures`); their replies are not used."""
    for number, line in enumerate(_lines(path)):
        row = _parsed(path, number, line)
        request = row.get("request") if isinstance(row, dict) else None
        if not isinstance(request, dict):
            raise BadFile(f"{path}: row {number + 1} has no request; export it with captures")
        kept = {key: value for key, value in request.items() if key not in _OF_A_STREAM}
        yield {"request": kept}


_OF_A_STREAM = ("stream", "stream_options")


def table(
    path: Path, columns: Mapping[str, str], backends: list[str], parquet: ReadRows
) -> Iterator[Document]:
    """Yield a request with the qualities of its replies per row of a table.

    Its form is RouterBench's (a column `prompt`, and one of scores per model, beside
    `MODEL|total_cost` and `MODEL|model_response`), or JSON lines with `q: {model: score}`.
    `columns` maps backends to models; a backend without an entry has its own name there. `parquet`
    reads the rows of a Parquet file.
    """
    named = {backend: columns.get(backend, backend) for backend in backends}
    for number, row in enumerate(_rows(path, parquet)):
        inner = row.get("q")
        scores: Mapping[str, Any] = inner if isinstance(inner, dict) else row
        known = {}
        for backend, model in named.items():
            score = scores.get(model)
            if score is not None and score != "":
                known[backend] = _quality(path, number, model, score)
        if not known:
            there = ", ".join(sorted(name for name in scores if "|" not in str(name))[:20])
            raise BadFile(
                f"{path}: row {number + 1} has no score of {', '.join(named.values())}; map "
                f"backends to columns with --column BACKEND=COLUMN, from: {there}"
            )
        yield {"request": _request(path, number, row), "qualities": known}


def journal(path: Path, route: str, backends: list[str]) -> Iterator[Document]:
    """Yield the contexts of a journal's labelled first decisions on a route, with the qualities."""
    labels: dict[str, dict[str, float]] = {}
    found = [row for segment in journal_reader.files([path]) for row in _of(segment)]
    if not found:
        raise BadFile(f"{path}: has no journal")
    for row in found:
        if row.get("kind") == "feedback" and row.get("route") == route:
            known = row.get("known") or {}
            labels[row["id"]] = {name: q for name, q in known.items() if name in backends}
    for row in found:
        if row.get("kind") != "decision" or row.get("stage") != 0:
            continue
        known = labels.pop(row["id"], None)
        if known:
            context = {"dense": row["dense"], "sparse": row["sparse"]}
            yield {"context": context, "qualities": known}


def _of(segment: Path) -> Iterator[Row]:
    def wanted(line: bytes) -> bool:
        return b'"decision"' in line or b'"feedback"' in line

    yield from journal_reader.sound(segment, journal_reader.Damage(), wanted)


def key_of(document: Document) -> str:
    """Return what identifies a request, and what is known of it, in the progress of a warm-up."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def groups(requests: Iterable[Document], most: int, most_bytes: int) -> Iterator[list[Document]]:
    """Yield requests in groups of at most `most`, and of `most_bytes` as JSON if not of one."""
    group: list[Document] = []
    size = 0
    for request in requests:
        own = len(json.dumps(request)) + 2
        if group and (len(group) >= most or size + own > most_bytes):
            yield group
            group, size = [], 0
        group.append(request)
        size += own
    if group:
        yield group


def _request(path: Path, number: int, document: Mapping[str, Any]) -> Document:
    request = document.get("request")
    if isinstance(request, dict):
        return {"model": MODEL, **request}
    if isinstance(document.get("messages"), list):
        return {"model": MODEL, "messages": document["messages"]}
    for name in PROMPT_NAMES:
        if isinstance(text := document.get(name), str):
            return {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    raise BadFile(
        f"{path}: row {number + 1} has no prompt; write "
        '{"prompt": "..."}, {"messages": [...]} or {"request": {...}}'
    )


def _quality(path: Path, number: int, model: str, score: Any) -> float:
    try:
        quality = float(score)
    except (TypeError, ValueError):
        quality = -1.0
    if not 0.0 <= quality <= 1.0:
        raise BadFile(f"{path}: row {number + 1}: {model} = {str(score)[:40]!r} is not from 0 to 1")
    return quality


def _rows(path: Path, parquet: ReadRows) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".parquet":
        try:
            yield from parquet(path)
        except ModuleNotFoundError as exc:
            why = "needs the extra simulate: pip install 'tollway[simulate]'"
            raise BadFile(f"{path}: Parquet {why}") from exc
    else:
        for number, line in enumerate(_lines(path)):
            row = _parsed(path, number, line)
            if not isinstance(row, dict):
                raise BadFile(f"{path}: row {number + 1} is not an object")
            yield row


def _lines(path: Path) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            if text := line.strip():
                yield text


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as exc:
        raise BadFile(f"{path}: row {number + 1} is not JSON: {exc}") from exc
