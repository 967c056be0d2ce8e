"""Signals are learned from once, apart from labels, and overruled by them."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tollway.gateway.learning.signals import ROWS_MAX, SIGNALS, SignalLearner
from tollway.gateway.settings import parse
from tollway.gateway.storage.journal_reader import Damage
from tollway.simulations.replay.journal_rows import stream

pytestmark = pytest.mark.integration

LENGTH = 'policy_options = {}\nsignals = [{ kind = "length", length = [0, 1000], weight = 1.0 }]'


async def scored(tollway: Running, decision: str, score: float) -> dict[str, Any]:
    """Send a signal as a worker would; return its result."""
    document = {"decision": decision, "scores": {"cheap": {"length": score}}}
    (result,) = await tollway.gateway.learner.teach([document], None, SIGNALS)
    return result


async def decided(tollway: Running) -> str:
    """Return a decision whose reply came from `cheap`, with no hook running."""
    tollway.gateway.signals.runner.hooks = {}
    reply = await tollway.infer()
    assert reply.headers["x-tollway-backend"] == "cheap"
    return str(reply.headers["x-tollway-decision"])


def test_signals_are_rows_of_their_own_that_replay_does_not_take_for_labels(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(a, b, route=LENGTH)
            async with running(toml, tmp_path) as tollway:
                decision = await decided(tollway)
                assert (await scored(tollway, decision, 0.0))["result"] == "learned"
                assert (await scored(tollway, "zzz.0.aaaa", 0.0))["result"] == "unknown"
                assert (await scored(tollway, decision, 2.0))["result"] == "refused"
                label = await tollway.feedback({"decision": decision, "quality": 1.0})
                assert label.json()["result"] == "learned"  # a signal is no feedback
                for _ in range(ROWS_MAX):
                    last = await scored(tollway, decision, 0.0)
                assert last["result"] == "duplicate"
                tollway.gateway.journal.flush()
                folder = tollway.gateway.settings.journal.dir
                kinds = [kind for kind, _ in stream(sorted(folder.glob("*.jsonl")), Damage())]
        assert kinds.count("feedback") == 1
        assert kinds.count("decision") == 1

    run(main)


def test_a_label_overrules_and_teaches_trust_whichever_comes_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=LENGTH), tmp_path) as tollway:
                route = tollway.gateway.routes["m"]
                prior = route.signals["length"]
                before = route.trust.trust("length", prior)
                first, second = await decided(tollway), await decided(tollway)
                await scored(tollway, first, 1.0)
                await tollway.feedback({"decision": first, "quality": 0.0})
                once = route.trust.trust("length", prior)
                await tollway.feedback({"decision": second, "quality": 0.0})
                version = route.policy.version
                await scored(tollway, second, 1.0)
                assert route.policy.version == version  # only the trust learns from it
                twice = route.trust.trust("length", prior)
                assert route.trust.agreement("length") == 0.0
        assert before > once > twice

    run(main)


def test_a_restart_learns_from_the_journals_signals_and_keeps_the_trust(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(a, b, route=LENGTH, policy="lagrangian", ledger="memory://")
            async with running(toml, tmp_path) as tollway:
                decision = ""
                while not decision:
                    reply = await tollway.infer()
                    if reply.headers["x-tollway-backend"] == "cheap":
                        decision = reply.headers["x-tollway-decision"]
                await tollway.gateway.signals.runner.settled()
                await tollway.feedback({"decision": decision, "quality": 1.0})
                trust = tollway.gateway.routes["m"].trust.save()
            assert trust["length"]["groups"][""]["cheap"][0] == 1.0
            async with running(toml, tmp_path) as again:
                assert again.gateway.routes["m"].trust.save() == trust
                journal, routes = again.gateway.journal, again.gateway.routes
                rows = again.journalled("signal")
                fresh = SignalLearner(journal, routes, again.gateway.metrics, lambda: 0.0)
                assert fresh.relearn(rows[0])

    run(main)


def test_a_route_without_signals_has_no_hooks() -> None:
    settings = parse(two_backends("http://127.0.0.1:1", "http://127.0.0.1:2"), {})
    assert settings.routes[0].signals == ()
