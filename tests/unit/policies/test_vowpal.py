"""Silent behaviour of Vowpal Wabbit that must not happen here."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from random import Random

import pytest

from tollway.policies.regressors.vowpal import ARMS_MAX, VowpalRegressor
from tollway.policies.types import Context


def context(rng: Random) -> Context:
    return Context(tuple(rng.random() for _ in range(20)))


def test_one_call_for_all_arms_is_the_regression_of_each() -> None:
    """Against a workspace that is asked one arm at a time, as a plain regressor is."""
    rng, head, single = Random(0), VowpalRegressor(), VowpalRegressor()
    for at in range(600):
        seen = context(rng)
        head.learn(seen, "abc"[at % 3], seen.dense[at % 3])
        single.learn(seen, "abc"[at % 3], seen.dense[at % 3])

    for _ in range(20):
        seen = context(rng)
        together = head.predict(seen, ("a", "b", "c"))
        apart = [single.predict(seen, (arm,))[0] for arm in "abc"]
        assert together == pytest.approx(apart, abs=1e-5)


def test_options_are_numbers_and_can_never_be_arguments() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        VowpalRegressor(learning_rate="0.5 --help")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid literal"):
        VowpalRegressor(seed="1 -f /tmp/model")  # type: ignore[arg-type]


def test_a_save_that_fails_silently_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    head = VowpalRegressor()

    class Silent:
        def save(self, path: str) -> None: ...

    monkeypatch.setattr(head, "_workspace", Silent())
    with pytest.raises(OSError, match="could not write"):
        head.save()


def test_a_save_that_raises_is_the_same_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tollway-").write_text("a file where a folder should be")
    monkeypatch.setattr(
        "tempfile.TemporaryDirectory", lambda prefix: nullcontext(str(tmp_path / prefix))
    )

    with pytest.raises(OSError, match="could not write"):
        VowpalRegressor().save()


def test_a_label_is_learned_at_once_and_the_first_prediction_is_zero() -> None:
    head, seen = VowpalRegressor(), context(Random(1))

    assert head.predict(seen, ("a",)) == [0.0]
    head.learn(seen, "a", 1.0)
    assert head.predict(seen, ("a",))[0] > 0.1


def test_a_model_with_other_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="other settings"):
        VowpalRegressor(bits=17).load(VowpalRegressor().save())


def test_arms_are_limited() -> None:
    head, seen = VowpalRegressor(), Context((1.0,))

    with pytest.raises(ValueError, match="arms"):
        for at in range(ARMS_MAX + 1):
            head.predict(seen, (str(at),))


def test_a_text_of_many_words_and_an_empty_context_are_both_contexts() -> None:
    head = VowpalRegressor()
    words = Context((), tuple((index * 7, 0.01) for index in range(2000)))

    head.learn(words, "a", 0.5)
    head.learn(Context(()), "a", 0.5)

    assert head.predict(words, ("a",))[0] == pytest.approx(0.5, abs=0.3)


LEAK = """
import resource
from random import Random
from tollway.policies.regressors.vowpal import VowpalRegressor
from tollway.policies.types import Context
head, rng = VowpalRegressor(), Random(0)
contexts = [Context(tuple(rng.random() for _ in range(20))) for _ in range(64)]
def go(count):
    for at in range(count):
        head.predict(contexts[at % 64], ("a", "b", "c"))
        head.learn(contexts[at % 64], "abc"[at % 3], 0.5)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = go(20_000)
print(go(180_000) - before)
"""


@pytest.mark.integration
def test_two_hundred_thousand_decisions_leak_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LEAK], capture_output=True, text=True, check=True, timeout=300
    )

    # A leaked example is 30 kB a line, so 180,000 would be gigabytes; 4 MB is the allocator's.
    assert int(run.stdout) * (1 if sys.platform != "darwin" else 1 / 1024) < 4096
