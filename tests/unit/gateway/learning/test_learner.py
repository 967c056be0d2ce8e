"""Feedback reaches the policy once, in any form, however late."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import one_model, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.parrot import Parrot
from tollway.gateway.learning.feedback import BadFeedback, parse
from tollway.policies.types import ACCEPT, Choice, Context

UNKNOWN = "zzz.0.aaaa"


class Watched:
    """A policy's `learn`, with its recorded arguments."""

    def __init__(self, tollway: Running) -> None:
        policy = tollway.gateway.routes["m"].policy
        self.told: list[tuple[Context, Choice, str, float]] = []
        self.weights: list[float] = []
        self._learn = policy.learn
        tollway.gateway.routes["m"].policy = self  # type: ignore[assignment]
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def learn(
        self, context: Context, choice: Choice, arm: str, quality: float, weight: float = 1.0
    ) -> None:
        self.told.append((context, choice, arm, quality))
        self.weights.append(weight)
        self._learn(context, choice, arm, quality, weight)


@pytest.mark.parametrize(
    ("document", "quality", "label"),
    [
        ({"decision": "d", "quality": 0.25}, 0.25, None),
        ({"decision": "d", "quality": 1}, 1.0, None),
        ({"decision": "d", "correct": True}, 1.0, None),
        ({"decision": "d", "correct": False}, 0.0, None),
        ({"decision": "d", "label": 0}, None, 0),
        ({"decision": "d", "label": "cat", "source": "judge-2"}, None, "cat"),
    ],
)
def test_each_form_of_feedback_is_read(document: Any, quality: float | None, label: Any) -> None:
    feedback = parse(document)
    assert (feedback.quality, feedback.label) == (quality, label)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"decision": 5, "quality": 1},
        {"decision": "d"},
        {"decision": "d", "quality": 1.01},
        {"decision": "d", "quality": -0.1},
        {"decision": "d", "quality": True},
        {"decision": "d", "quality": 1, "probability": 0},
        {"decision": "d", "quality": 1, "probability": 1.5},
        {"decision": "d", "quality": 1, "probability": True},
        {"decision": "d", "quality": "1"},
        {"decision": "d", "quality": float("nan")},
        {"decision": "d", "correct": 1},
        {"decision": "d", "quality": 1, "label": 2},
        {"decision": "d", "qualty": 1},
        {"decision": "d", "quality": 1, "source": "x" * 65},
    ],
)
def test_feedback_that_says_nothing_is_refused_with_what_to_send(document: Any) -> None:
    with pytest.raises(BadFeedback, match=r"\w"):
        parse(document)


@pytest.mark.integration
def test_feedback_is_learned_once_and_answered_clearly(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(Upstream(label=7)) as a,
            running(two_backends(a, a), tmp_path) as tollway,
        ):
            watched = Watched(tollway)
            ids = [(await tollway.infer(n)).headers["x-tollway-decision"] for n in (1.0, 2.0, 3.0)]
            late = [
                await tollway.feedback({"decision": ids[2], "label": 7}),
                await tollway.feedback({"decision": ids[0], "label": "8"}),
                await tollway.feedback({"decision": ids[2], "label": 7}),
                await tollway.feedback({"decision": ids[0], "quality": 1.0}),
                await tollway.feedback({"decision": UNKNOWN, "quality": 1.0}),
                await tollway.feedback({"decision": ids[1], "quality": 2.0}),
                await tollway.feedback({"decision": ids[1], "correct": True}),
            ]
            seen = [(reply.status_code, reply.json()["result"]) for reply in late]
            assert seen == [
                (202, "learned"),
                (202, "learned"),
                (200, "duplicate"),
                (200, "duplicate"),
                (404, "unknown"),
                (422, "refused"),
                (202, "learned"),
            ]
            told = [(context.dense, choice.arm, arm, q) for context, choice, arm, q in watched.told]
            assert [q for *_, q in told] == [1.0, 0.0, 1.0]
            assert all(choice_arm == arm == "cheap" for _, choice_arm, arm, _ in told)

    run(main)


@pytest.mark.integration
def test_many_are_answered_each_for_itself_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_backends(a, a), tmp_path) as tollway:
            decision = (await tollway.infer()).headers["x-tollway-decision"]
            reply = await tollway.feedback(
                [
                    {"decision": decision, "quality": 1},
                    {"x": 1},
                    {"decision": UNKNOWN, "quality": 0},
                ]
            )
            assert [r["result"] for r in reply.json()["results"]] == [
                "learned",
                "refused",
                "unknown",
            ]
            too_many = await tollway.feedback([{"decision": UNKNOWN, "quality": 0}] * 1001)
            garbage = await tollway.client.post(tollway.url + "/_tollway/feedback", content=b"{")
            assert (too_many.status_code, garbage.status_code) == (413, 400)

    run(main)


@pytest.mark.integration
def test_a_label_scores_every_reply_of_a_cascade(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1, confidence=0.3)) as a, serving(Upstream(label=2)) as b:
            config = two_backends(a, b, policy="lagrangian", route="cascade = true")
            async with running(config, tmp_path) as tollway:
                watched = Watched(tollway)
                for _ in range(60):
                    reply = await tollway.infer()
                    await tollway.feedback(
                        {"decision": reply.headers["x-tollway-decision"], "label": 2}
                    )
            after = [
                (arm, choice.arm, q) for x, choice, arm, q in watched.told if x.held == "cheap"
            ]
            assert ("dear", "dear", 1.0) in after  # what was asked
            assert (ACCEPT, "dear", 0.0) in after  # what was passed over
            before = {(arm, q) for x, _, arm, q in watched.told if not x.held}
            assert before <= {("cheap", 0.0), ("dear", 1.0)}

    run(main)


@pytest.mark.integration
@pytest.mark.parametrize("baseline", ["", 'baseline = "dear"'])
def test_the_journal_states_how_each_reply_counts_for_the_floor(
    tmp_path: Path, baseline: str
) -> None:
    """Without a baseline, and while a cascade asks both, every reply counts once."""

    async def main() -> None:
        async with serving(Upstream(label=1)) as a, serving(Upstream(label=2)) as b:
            floor = f'objective = "min_cost"\naccuracy_floor = 0.9\ncascade = true\n{baseline}'
            config = two_backends(a, b, policy="lagrangian", route=floor)
            async with running(config, tmp_path) as tollway:
                watched = Watched(tollway)
                for _ in range(60):
                    reply = await tollway.infer()
                    await tollway.feedback(
                        {"decision": reply.headers["x-tollway-decision"], "label": 1}
                    )
            later = [choice for x, choice, _, _ in watched.told if x.held == "cheap"]
            assert {choice.reached for choice in later} == {1.0}
            if baseline:  # the label scores both replies
                first = [choice for x, choice, _, _ in watched.told if not x.held]
                assert {choice.arm for choice in first} == {"cheap"}
                assert {choice.arm for choice in later} == {"dear"}
                assert len(later) == 2 * len(first)  # what was asked, and what was passed over

    run(main)


@pytest.mark.integration
def test_a_fallbacks_answer_is_not_learned_as_if_it_had_been_drawn(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(status=500)) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                watched = Watched(tollway)
                reply = await tollway.infer()
                told = {"decision": reply.headers["x-tollway-decision"], "quality": 1.0}
                assert (await tollway.feedback(told)).status_code == 202
            assert watched.told == []

    run(main)


@pytest.mark.integration
def test_feedback_from_before_a_restart_is_learned_and_what_was_learned_is_kept(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a, serving(Upstream(label=2)) as b:
            config = two_backends(a, b, policy="lagrangian")
            async with running(config, tmp_path) as tollway:
                ids = []
                for _ in range(30):
                    reply = await tollway.infer()
                    ids.append(reply.headers["x-tollway-decision"])
                    await tollway.feedback({"decision": ids[-1], "label": 2})
                pending = (await tollway.infer()).headers["x-tollway-decision"]
                version = tollway.gateway.routes["m"].policy.version
            async with running(config, tmp_path) as tollway:
                assert tollway.gateway.routes["m"].policy.version == version > 0
                late = await tollway.feedback({"decision": pending, "label": 2})
                again = await tollway.feedback({"decision": ids[0], "label": 2})
                assert (late.json()["result"], again.json()["result"]) == ("learned", "duplicate")

    run(main)


def test_a_label_that_was_less_likely_stands_for_more_answers(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                watched = Watched(tollway)
                for probability in (0.1, 0.1, 0.05, 0.2, 0.001):
                    reply = await tollway.infer()
                    await tollway.feedback(
                        {
                            "decision": reply.headers["x-tollway-decision"],
                            "label": 1,
                            "probability": probability,
                        }
                    )
        assert watched.weights[:2] == [1.0, 1.0]
        assert watched.weights[2] == pytest.approx(2.0)
        assert watched.weights[3] < 0.6
        assert watched.weights[4] == 4.0  # the most that one label may count for

    run(main)


SCORED = 'score = { exact = "choices[0].message.content" }'


@pytest.mark.integration
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("label", "quality"), [("Paris", 1.0), ("London", 0.0)])
def test_a_label_scores_the_text_of_a_chat(
    tmp_path: Path, stream: bool, label: str, quality: float
) -> None:
    async def main() -> None:
        async with (
            serving(Parrot()) as url,
            running(
                one_model(url, price="{ per_request_usd = 0.001 }", route=SCORED), tmp_path
            ) as tollway,
        ):
            watched = Watched(tollway)
            asked = {"model": "m", "messages": [{"role": "user", "content": "Paris"}]}
            reply = await tollway.client.post(
                tollway.url + "/v1/chat/completions", json={**asked, "stream": stream}
            )
            assert reply.status_code == 200, reply.text
            told = {"decision": reply.headers["x-tollway-decision"], "label": label}
            assert (await tollway.feedback(told)).status_code == 202
            assert [learned for _, _, _, learned in watched.told] == [quality]

    run(main)
