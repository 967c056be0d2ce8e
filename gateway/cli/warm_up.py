"""The command `tollway warmup`: starts a route's policy from answers of all its backends."""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tollway.backends.money import format_usd
from tollway.gateway.cli import terminal, warm_up_files, warm_up_scores
from tollway.gateway.cli.client import ControlClient, Declined
from tollway.gateway.cli.warm_up_files import BadFile, Document, ReadRows

TIMEOUT_S = 1200.0  # of a request to all backends, one after the other
QUOTED = 50  # requests per estimate
QUOTED_BYTES = 300_000  # of them: the gateway reads no larger documents than its feedback's
ROWS = 300  # of prompts: the gain of more is small
TABLE_ROWS = 2000
SOURCE = "warm-up"

_MORE = f"""\
examples:
  tollway warmup chat --prompts questions.jsonl
  tollway warmup chat --prompts questions.txt --judge gpt-4o
  tollway warmup chat --prompts questions.txt --answers answers.txt --yes
  tollway warmup chat --captures captures.jsonl --judge gpt-4o
  tollway warmup chat --table routerbench.csv --column local=mistral-7b --column hosted=gpt-4
  tollway warmup chat --journal /backup/journal

A policy that starts untrained sees one backend's answer to a request. A warm-up asks all backends
of the route, scores each answer and teaches the policy all of them. It asks a running gateway,
which reserves and charges each call as any other. The cost is estimated first, and must be
confirmed.

--prompts   a text file with a prompt per line, or JSON lines: {{"prompt": "..."}},
            {{"messages": [...]}} or {{"request": {{...}}}}, each with an "answer" (the same final
            number, boxed result or words), a "regex" or a JSON "schema" to score replies by
--judge     a backend that grades the replies that nothing else scores, from 0 to 10
--table     known scores, without any call: CSV, Parquet or JSON lines as RouterBench has them (a
            column "prompt" and one of scores for each model), or rows
            {{"prompt": "...", "q": {{model: score}}}}
--journal   labels of another gateway's journal for a route with the same `context`
--captures  prompts exported by `tollway captures`; they need --judge

What is done is noted in a progress file, so a warm-up that breaks goes on where it stopped when it
is run again. At most --rows requests are used (default: {ROWS}; {TABLE_ROWS} of --table and
--journal).

{terminal.REMOTE}"""


def add(commands: Any, parquet: ReadRows) -> None:
    """Add the command; `parquet` reads the rows of a Parquet file."""
    summary = "start a route's policy from answers of all its backends"
    command = terminal.add(commands, "warmup", _warm_up, summary, _MORE)
    command.add_argument("route", help="the route's name")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts", type=Path, metavar="FILE", help="prompts to ask all backends")
    source.add_argument("--captures", type=Path, metavar="FILE", help="exported captures to ask")
    source.add_argument("--table", type=Path, metavar="FILE", help="known scores of each backend")
    source.add_argument("--journal", type=Path, metavar="DIR", help="labels of another journal")
    command.add_argument("--answers", type=Path, metavar="FILE", help="true answers, one per line")
    command.add_argument("--judge", metavar="BACKEND", help="the backend that grades replies")
    command.add_argument(
        "--column", action="append", default=[], metavar="BACKEND=COLUMN", help="a table's column"
    )
    command.add_argument("--rows", type=int, metavar="N", help="use at most N requests")
    command.add_argument("--path", help="the path to call, if the route's is a pattern")
    command.add_argument("--tenant", help="the tenant whose budgets pay (default: anonymous)")
    command.add_argument("--progress", type=Path, metavar="FILE", help="what is done already")
    command.add_argument("--yes", action="store_true", help="do not ask before spending")
    command.set_defaults(parquet=parquet)
    terminal.add_remote(command)


def _warm_up(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    client = replace(terminal.remote(arguments, environ), timeout_s=TIMEOUT_S)
    try:
        run = _Run(arguments, client)
        documents = list(itertools.islice(run.documents(), run.most))
        if not documents:
            return terminal.fail(terminal.FAILED, "there is nothing to learn from in the file")
        todo = [one for one in documents if warm_up_files.key_of(one) not in run.done]
        if "qualities" not in documents[0] and todo and not run.confirmed(todo):
            return terminal.fail(terminal.FAILED, "nothing was asked and nothing was spent")
        run.go(todo, len(documents) - len(todo))
    except (BadFile, UnicodeDecodeError) as exc:
        return terminal.fail(terminal.USAGE, str(exc))
    return terminal.OK if run.learned or not todo else terminal.FAILED


def _parts(requests: Iterable[Document]) -> Iterator[list[Document]]:
    return warm_up_files.groups(requests, QUOTED, QUOTED_BYTES)


class _Run:
    """One warm-up. The mutable state is what was learned and spent."""

    def __init__(self, arguments: argparse.Namespace, client: ControlClient) -> None:
        self._arguments = arguments
        self._client = client
        self.backends = self._of_route()
        source = next(
            path
            for path in (
                arguments.prompts,
                arguments.captures,
                arguments.table,
                arguments.journal,
            )
            if path is not None
        )
        self._source: Path = source
        known = arguments.table is not None or arguments.journal is not None
        self.most = arguments.rows or (TABLE_ROWS if known else ROWS)
        beside = source.with_name(f"{source.name}.{arguments.route}.warmup.jsonl")
        self._progress: Path = arguments.progress or beside
        self.done = self._read_progress()
        self.learned = self.failed = self.unscored = self.spent_nano = 0

    def _of_route(self) -> list[str]:
        """Return the backends of the route. Raises BadFile if there is no such route."""
        routes = self._client.get("routes")["routes"]
        for route in routes:
            if route["name"] == self._arguments.route:
                return [backend["name"] for backend in route["backends"]]
        names = ", ".join(route["name"] for route in routes)
        raise BadFile(f"there is no route {self._arguments.route!r}; the gateway has: {names}")

    def documents(self) -> Iterator[Document]:
        """Return what to learn from, in its order."""
        arguments = self._arguments
        if arguments.prompts is not None:
            return warm_up_files.prompts(arguments.prompts, arguments.answers)
        if arguments.captures is not None:
            return warm_up_files.captures(arguments.captures)
        if arguments.table is not None:
            columns = self._columns()
            return warm_up_files.table(arguments.table, columns, self.backends, arguments.parquet)
        return warm_up_files.journal(arguments.journal, arguments.route, self.backends)

    def _columns(self) -> dict[str, str]:
        columns = {}
        for text in self._arguments.column:
            backend, sign, column = text.partition("=")
            if not sign or backend not in self.backends:
                names = ", ".join(self.backends)
                raise BadFile(f"--column {text!r}: write BACKEND=COLUMN with one of {names}")
            columns[backend] = column
        return columns

    # -- money

    def confirmed(self, documents: Sequence[Document]) -> bool:
        """Show what asking costs, and return whether to go on."""
        scored = all(one.keys() & {"answer", "regex", "schema"} for one in documents)
        if not scored and self._arguments.judge is None:
            raise BadFile(
                f"{self._source}: some prompts have no answer, regex or schema, so their replies "
                "cannot be scored; add them, --answers FILE or --judge BACKEND"
            )
        expected = ceiling = 0
        free: int | None = None
        for part in _parts(one["request"] for one in documents):
            told = self._post(requests=part)
            expected += sum(one["expected_nano"] for one in told["backends"].values())
            ceiling += sum(one["ceiling_nano"] for one in told["backends"].values())
            free = told["free_nano"]
        if self._arguments.judge is not None:
            judged = [warm_up_scores.judged(one, "x" * 1000) for one in documents[:QUOTED]]
            times = len(self.backends) * len(documents) / len(judged)
            for part in _parts(judged):
                told = self._post(requests=part, backends=[self._arguments.judge])
                (one,) = told["backends"].values()
                expected += round(times * one["expected_nano"])
                ceiling += round(times * one["ceiling_nano"])
        self._note(
            f"{len(documents)} requests to {len(self.backends)} backends"
            f"{' and the judge' if self._arguments.judge else ''}: about {format_usd(expected)}, "
            f"at most {format_usd(ceiling)}."
        )
        if free is not None:
            self._note(f"The budgets that pay for it have {format_usd(free)} left.")
            if free < expected:
                raise Declined("the budgets do not cover the expected cost; use fewer --rows")
        return bool(self._arguments.yes) or self._asked()

    def _asked(self) -> bool:
        if not sys.stdin.isatty():
            self._note("Confirm with --yes.")
            return False
        self._note("Spend it? [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    # -- asking and learning

    def go(self, documents: Iterable[Document], before: int) -> None:
        """Ask, score and teach; say how far it is."""
        for number, document in enumerate(documents, 1):
            if "qualities" in document:
                self._teach(document, self._post(**document)["result"], document["qualities"])
            else:
                self._ask(document)
            if number % 25 == 0:
                self._note(f"{number} done, {format_usd(self.spent_nano)} spent")
        figures = {
            "route": self._arguments.route,
            "learned": self.learned,
            "learned_before": before,
            "unscored": self.unscored,
            "failed": self.failed,
            "cost_nano": self.spent_nano,
        }
        if self._arguments.json:
            terminal.say_json(figures)
            return
        terminal.say(
            f"Route {figures['route']}: {self.learned} requests learned, {before} before, "
            f"{self.unscored} without a score, {self.failed} failed; "
            f"{format_usd(self.spent_nano)} spent."
        )

    def _ask(self, document: Document) -> None:
        told = self._post(request=document["request"])
        self.spent_nano += told["cost_nano"]
        known: dict[str, float] = {}
        for reply in told["replies"]:
            if reply["error"]:
                continue
            quality = warm_up_scores.score(document, reply.get("answer"))
            if quality is None and self._arguments.judge is not None:
                quality = self._judged(document, reply.get("answer"))
            if quality is not None:
                known[reply["backend"]] = quality
        if not told["decision"]:
            self.failed += 1
            self._note("; ".join(f"{one['backend']}: {one['error']}" for one in told["replies"]))
            if all(one["error"].startswith("budget ") for one in told["replies"]):
                raise Declined("a budget refuses the calls; run it again when there is money")
        elif not known:
            self.unscored += 1
        else:
            item = {"decision": told["decision"], "qualities": known, "source": SOURCE}
            result = self._client.post([item], "feedback")["results"][0]
            self._teach(document, result["result"], known)

    def _judged(self, document: Document, answer: Any) -> float | None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        told = self._post(
            request=warm_up_scores.judged(document, text), backends=[self._arguments.judge]
        )
        self.spent_nano += told["cost_nano"]
        return warm_up_scores.grade(told["replies"][0].get("answer"))

    def _teach(self, document: Document, result: str, known: dict[str, float]) -> None:
        if result not in ("learned", "duplicate"):
            self.failed += 1
            return
        self.learned += 1
        with self._progress.open("a") as file:
            done = {"key": warm_up_files.key_of(document), "qualities": known}
            file.write(json.dumps(done) + "\n")

    def _post(self, **document: Any) -> Any:
        given = {"route": self._arguments.route, **document}
        for name in ("path", "tenant"):
            if getattr(self._arguments, name) is not None:
                given[name] = getattr(self._arguments, name)
        return self._client.post(given, "warmup")

    def _read_progress(self) -> set[str]:
        if not self._progress.exists():
            return set()
        done = set()
        for line in self._progress.read_text().splitlines():
            try:
                done.add(str(json.loads(line)["key"]))
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was killed
        return done

    def _note(self, text: str) -> None:
        """Tell how far it is, beside the figures on stdout."""
        sys.stderr.write(f"{text}\n")
