"""The Python API: its names, and each of its functions over a journal or a policy."""

import sys
from importlib.metadata import version
from pathlib import Path
from random import Random

import pytest

import tollway
from tests.support.synthetic import ARMS, World, world, write_journal


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    folder, found = tmp_path_factory.mktemp("journal"), world(1200, 4)
    write_journal(folder, found)
    return folder, found


def test_every_name_of_the_api_is_importable_and_documented() -> None:
    for name in tollway.__all__:
        assert getattr(tollway, name) is not None
        assert name in dir(tollway)
        if name != "__version__":
            assert getattr(tollway, name).__doc__, name
    page = (Path(__file__).parents[3] / "docs" / "python.md").read_text()
    assert [name for name in tollway.__all__ if f"`{name}" not in page] == []


def test_the_version_is_that_of_the_installed_package() -> None:
    assert tollway.__version__ == version("tollway")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'replays'"):
        _ = tollway.replays


def test_a_missing_polars_is_reported_with_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.delitem(sys.modules, "tollway.api.replay", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"polars.*tollway\[simulate\]"):
        _ = tollway.replay


def test_the_rows_of_a_journal_come_in_the_order_in_which_they_were_written(
    journal: tuple[Path, World],
) -> None:
    rows = list(tollway.read_journal(str(journal[0])))
    assert [row["kind"] for row in rows[:2]] == ["decision", "attempt"]
    drawn = [row["arm"] for row in rows if row["kind"] == "decision"]
    assert drawn == [ARMS[at] for at in journal[1].log.arm]


def test_a_journal_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no journal-"):
        tollway.read_journal(tmp_path)
    with pytest.raises(ValueError, match="no journal-"):
        tollway.replay(tmp_path)


def test_damaged_rows_are_skipped_with_a_warning(
    journal: tuple[Path, World], tmp_path: Path
) -> None:
    segment = sorted(journal[0].glob("journal-*"))[0]
    copy = tmp_path / segment.name
    copy.write_bytes(segment.read_bytes().replace(b'"cheap"', b'"chEap"', 1))
    with pytest.warns(RuntimeWarning, match="1 of .* rows"):
        rows = list(tollway.read_journal(copy))
    assert rows


def test_decisions_come_as_a_table_with_their_feedback(journal: tuple[Path, World]) -> None:
    table = tollway.read_decisions(journal[0])
    assert table["arm"].to_list() == [ARMS[at] for at in journal[1].log.arm]
    assert table["quality"].to_list() == journal[1].log.quality.tolist()
    with pytest.raises(ValueError, match="no route 'letters' in the log"):
        tollway.read_decisions(journal[0], route="letters")


def test_a_replay_says_what_was_logged_first_then_each_policy(
    journal: tuple[Path, World],
) -> None:
    result = tollway.replay(journal[0], ["fixed:arm=great", "lagrangian"])
    assert [one.label for one in result.outcomes] == ["logged", "fixed:arm=great", "lagrangian"]
    quality = result.outcomes[1].quality
    assert isinstance(quality, tollway.Estimate)
    assert quality.low <= journal[1].expected[:, 2].mean() <= quality.high


def test_a_replay_without_policies_estimates_each_arm(journal: tuple[Path, World]) -> None:
    labels = [one.label for one in tollway.replay(journal[0]).outcomes]
    assert labels == ["logged", *(f"fixed:arm={arm}" for arm in ARMS)]


def test_an_unknown_policy_is_refused_with_those_there_are(journal: tuple[Path, World]) -> None:
    with pytest.raises(ValueError, match="lagrangian"):
        tollway.replay(journal[0], ["langrangian"])
    with pytest.raises(ValueError, match="did you mean 'lagrangian'"):
        tollway.build_policy("langrangian")


def test_a_policy_is_built_with_its_options() -> None:
    policy = tollway.build_policy("weighted", weights={"cheap": 3, "great": 1})
    arms = [tollway.Arm("cheap", 0.0001), tollway.Arm("great", 0.001)]
    choice = policy.choose(tollway.Context(()), arms, Random(1))
    assert choice.pmf == (0.75, 0.25)
