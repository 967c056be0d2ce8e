"""Replay of logs: file formats, questions, and output."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.synthetic import (
    ARMS,
    COST,
    LEVEL,
    World,
    as_frame,
    feedback,
    rows_of,
    world,
    write_journal,
)
from tollway.gateway.cli.main import main
from tollway.gateway.storage.journal import Journal
from tollway.simulations.replay import log_files, logs, replay
from tollway.simulations.replay.bounded import Bounded
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.estimators import Estimate, Refused
from tollway.simulations.replay.logs import BadLog, Log
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.replay.targets import parse


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """A journal of two segments: feedback of the last decisions stands in the second."""
    folder, found = tmp_path_factory.mktemp("journal"), world(1200, 4)
    write_journal(folder, found)
    return folder, found


def read(path: Path, **columns: object) -> tuple[Log, Scratch]:
    scratch = Scratch()
    return log_files.read(path, scratch, Columns(**columns)), scratch  # type: ignore[arg-type]


def test_a_journal_is_read_exactly_as_logged(journal: tuple[Path, World]) -> None:
    folder, found = journal
    log, _scratch = read(folder)
    assert log.arms == ARMS
    for name in ("pmf", "propensity", "quality", "cost_usd", "cost_hat_usd"):
        np.testing.assert_allclose(getattr(log, name), getattr(found.log, name), atol=1e-9)
    assert (log.arm == found.log.arm).all()
    context = log.contexts(5, 6)[0]
    assert context.dense == (pytest.approx(found.x[5]),)
    assert context.sparse == ((7, 1.0),)


def test_streams_cost_what_they_were_settled_at(
    journal: tuple[Path, World], tmp_path: Path
) -> None:
    plain, found = journal
    streamed, ends = Journal(tmp_path / "streams"), []
    for row in range(1200):
        decision = streamed.new_id()
        draw, attempt = rows_of(found, row, decision)
        begun = {**attempt, "cost_nano": 0, "provenance": "pending", "latency_s": 0.001}
        end = {**attempt, "kind": "settlement", "provenance": "usage"}
        streamed.append(draw, begun)
        ends.append(end if row % 7 else {**end, "error": "broken off"})
        if row >= 3:  # others begin before one ends
            streamed.append(ends[row - 3])
        streamed.append(feedback(found, row, decision))
    streamed.append(*ends[-3:])
    streamed.close()
    whole, _one = read(plain)
    log, _other = read(tmp_path / "streams")
    kept = np.arange(1200) % 7 != 0
    np.testing.assert_allclose(log.cost_usd, whole.cost_usd[kept], atol=1e-12)
    np.testing.assert_allclose(log.quality, whole.quality[kept])


def test_a_journal_that_is_sorted_a_stretch_at_a_time_is_the_same(
    journal: tuple[Path, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _one = read(journal[0])
    monkeypatch.setattr(logs, "SORTED_ROWS", 97)
    in_slices, _other = read(journal[0])
    for name in ("time", "arm", "pmf", "quality", "cost_usd"):
        np.testing.assert_array_equal(getattr(in_slices, name), getattr(whole, name))
    assert in_slices.contexts(90, 310) == whole.contexts(90, 310)


def test_a_truncated_tail_is_reported_and_the_rest_is_used(
    journal: tuple[Path, World], tmp_path: Path
) -> None:
    for path in journal[0].glob("*.jsonl"):
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:-40])
    log, _scratch = read(tmp_path)
    assert len(log) == 1200
    assert "cut or damaged" in log.notes[0]


def test_draws_that_were_not_as_logged_are_left_out_and_counted(tmp_path: Path) -> None:
    found, written = world(300, 4), Journal(tmp_path)
    for row in range(300):
        decision = written.new_id()
        rows = rows_of(found, row, decision)
        if row < 3:
            rows[0]["redrawn"] = True
        elif row < 5:
            rows[1]["error"] = "status 503"
        elif row < 6:
            rows[1]["fallback"] = True
        elif row < 7:
            rows[1:] = []
        written.append(*rows, feedback(found, row, decision))
    written.close()
    log, _scratch = read(tmp_path)
    assert log.excluded == {"redrawn": 3, "failed": 3, "refused": 1}
    assert len(log) == 293
    notes = replay.Replay(log).notes()
    assert any("7 of 300 decisions are left out" in note for note in notes)
    assert any("above 1 %" in note for note in notes)


@pytest.mark.integration
@pytest.mark.parametrize("labels", [True, False], ids=["true labels", "what the client got"])
def test_the_first_arm_of_a_cascade_is_estimated_from_any_kind_of_feedback(
    tmp_path: Path, labels: bool
) -> None:
    """Bad first replies are escalated more often, so the kept ones overestimate the arm."""
    rng, found = np.random.default_rng(8), world(6000, 8, p_min=0.3)
    written = Journal(tmp_path)
    for row in range(6000):
        decision = written.new_id()
        rows = rows_of(found, row, decision)
        arm, good = ARMS[found.log.arm[row]], float(found.log.quality[row])
        known = {arm: good}
        if arm != "great":
            chance = 0.8 if good else 0.3
            kept = rng.random() < chance
            then = {**rows[0], "stage": 1, "arms": ["accept", "great"]}
            then |= {"pmf": [chance, 1 - chance], "arm": "accept" if kept else "great"}
            then["propensity"] = chance if kept else 1 - chance
            rows.insert(1, then)
            if not kept:
                rows.append({**rows[-1], "attempt": 1, "backend": "great", "cost_nano": 1_000_000})
                known = {**(known if labels else {}), "great": 1.0}
        written.append(*rows, {**feedback(found, row, decision), "known": known})
    written.close()
    log, _scratch = read(tmp_path)
    outcomes = replay.ask(log, replay.fixed(log))
    for arm, outcome in zip(range(3), outcomes[1:], strict=True):
        assert isinstance(outcome.quality, Estimate)
        assert outcome.quality.low <= LEVEL[arm] <= outcome.quality.high
        assert outcome.quality.value == pytest.approx(LEVEL[arm], abs=0.06)


def test_audits_are_no_draws_and_their_labels_are_left_out(tmp_path: Path) -> None:
    found, written = world(200, 4), Journal(tmp_path)
    for row in range(200):
        decision = written.new_id()
        rows = rows_of(found, row, decision)
        written.append(*rows)
        if row % 2:
            written.append({**rows[1], "attempt": 1, "audit": 0.1})
        written.append({**feedback(found, row, decision), "probability": 0.1 if row % 2 else 1.0})
    written.close()
    log, _scratch = read(tmp_path)
    assert len(log) == 200
    assert not log.excluded
    assert np.isfinite(log.quality).tolist() == [True, False] * 100
    assert "100 labels from audits" in log.notes[0]


def test_each_arm_and_its_saving_are_estimated_from_a_journal(journal: tuple[Path, World]) -> None:
    log, _scratch = read(journal[0])
    logged, *outcomes = replay.ask(log, replay.fixed(log))
    for arm, outcome in enumerate(outcomes):
        assert isinstance(outcome.quality, Estimate)
        assert isinstance(outcome.cost_usd, Estimate)
        assert isinstance(outcome.quality_gain, Estimate)
        assert outcome.quality.low <= LEVEL[arm] <= outcome.quality.high
        assert outcome.cost_usd.value == pytest.approx(COST[arm], rel=1e-6)
        assert outcome.saving is not None
        assert outcome.saving[1] <= 1.0 - COST[arm] / log.total_usd.mean() <= outcome.saving[2]
        gain = LEVEL[arm] - np.mean((journal[1].expected * log.pmf).sum(axis=1))
        assert outcome.quality_gain.low <= gain <= outcome.quality_gain.high
    assert isinstance(logged.quality, Estimate)
    assert logged.quality.value == pytest.approx(float(log.quality.mean()))


def test_a_mix_lies_between_its_arms_and_a_learned_policy_between_the_best_and_worst(
    journal: tuple[Path, World],
) -> None:
    log, _scratch = read(journal[0])
    asked = replay.Replay(log)
    mix = asked.ask(parse("weighted:cheap=1,great=1")).quality
    assert isinstance(mix, Estimate)
    assert mix.low <= (LEVEL[0] + LEVEL[2]) / 2 <= mix.high
    learned = asked.ask(parse("lagrangian:p_min=0.02", allowance_usd=0.01)).quality
    assert isinstance(learned, Estimate)
    assert LEVEL[0] < learned.value <= LEVEL[2] + 0.03


def test_a_learning_policy_does_not_see_later_feedback(journal: tuple[Path, World]) -> None:
    log, _scratch = read(journal[0])
    costs = replay.Replay(log).costs
    target = parse("lagrangian", allowance_usd=0.0002)
    changed = log.quality.copy()
    changed[600:] = 1.0 - changed[600:]
    other = Log(**{name: getattr(log, name) for name in Log.__slots__} | {"quality": changed})
    before, after = (target.probabilities(one, costs) for one in (log, other))
    assert (before[:601] == after[:601]).all()
    assert (before[601:] != after[601:]).any()


def test_unequal_label_rates_of_arms_do_not_bias_the_estimate() -> None:
    found = world(20_000, 9, p_min=0.2)
    told = np.random.default_rng(1).random(20_000) < np.array([0.9, 0.5, 0.15])[found.log.arm]
    quality = np.where(told, found.log.quality, np.nan)
    fields = {name: getattr(found.log, name) for name in Log.__slots__}
    log = Log(**fields | {"quality": quality, "final_quality": quality})
    asked = replay.Replay(log)
    for arm, target in enumerate(replay.fixed(log)):
        got = asked.ask(target).quality
        assert isinstance(got, Estimate)
        assert got.ips == pytest.approx(LEVEL[arm], abs=0.06)
        assert got.low <= LEVEL[arm] <= got.high
    assert any("of the decisions have a quality" in note for note in asked.notes())


# -- files of others


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_with_named_columns_is_read(kind: str, tmp_path: Path) -> None:
    found, path = world(1500, 2, p_min=0.1), tmp_path / f"log.{kind}"
    frame = as_frame(found)
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    named = {"arm": "model", "propensity": "p", "quality": "reward", "cost": "usd"}
    log, _scratch = read(path, **named, features=("x",))
    assert log.contexts(0, 1)[0].dense == (pytest.approx(found.x[0]),)
    asked = replay.Replay(log)
    for arm, target in enumerate(replay.fixed(log)):
        got = asked.ask(target).quality
        assert isinstance(got, Estimate)
        assert got.low <= LEVEL[arm] <= got.high
    assert any("--p-min" in note for note in asked.notes())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_probabilities_of_all_arms_are_read_from_columns(kind: str, tmp_path: Path) -> None:
    found, path = world(800, 2, p_min=0.1), tmp_path / f"log.{kind}"
    columns = {f"p_{arm}": found.log.pmf[:, at] for at, arm in enumerate(found.log.arms)}
    frame = as_frame(found).drop("p").with_columns(**columns, p_never=pl.lit(None, pl.Float64))
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    named = {"arm": "model", "quality": "reward", "cost": "usd"}
    log, _scratch = read(path, **named, probabilities="p_")
    assert log.whole
    assert set(log.arms) == {*found.log.arms, "never"}
    for at, arm in enumerate(found.log.arms):
        np.testing.assert_allclose(log.pmf[:, log.arms.index(arm)], found.log.pmf[:, at])
    np.testing.assert_allclose(log.propensity, found.log.propensity)
    never = parse("fixed:arm=never")
    assert isinstance(replay.Replay(log).ask(never).quality, Refused)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"q_a": [1.0]}, "0 columns that begin with 'p_'"),
        ({"p_b": [0.5], "p_c": [0.5]}, "no column 'p_a'"),
        ({"p_a": ["x"], "p_b": [0.5]}, "p_a = 'x' is not a number"),
    ],
)
def test_columns_of_probabilities_that_do_not_fit_are_named(
    columns: dict[str, list[object]], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"arm": ["a"], "quality": [1.0], **columns}).write_parquet(path)
    with pytest.raises(BadLog, match=said):
        read(path, probabilities="p_")


def test_vw_dsjson_is_read(tmp_path: Path) -> None:
    found, path = world(800, 2, p_min=0.1), tmp_path / "log.dsjson"
    log = found.log
    with path.open("w") as file:
        for row in range(800):
            order = [int(log.arm[row]), *(a for a in range(3) if a != log.arm[row])]
            multi = [{"m": {"id": name}} for name in ARMS]
            line = {
                "_label_cost": -float(log.quality[row]),
                "_label_probability": float(log.propensity[row]),
                "a": [at + 1 for at in order],
                "p": [float(log.pmf[row, at]) for at in order],
                "c": {"_multi": multi},
            }
            file.write(json.dumps(line) + "\n")
    got, _scratch = read(path)
    assert got.whole
    np.testing.assert_allclose(got.pmf, log.pmf)
    np.testing.assert_allclose(got.quality, log.quality)


def test_the_open_bandit_dataset_is_read_with_its_propensities(tmp_path: Path) -> None:
    path = tmp_path / "random.csv"
    path.write_text(
        ",timestamp,item_id,position,click,propensity_score,user_feature_0\n"
        "0,2019-11-24 00:00:34.762830+00:00,14,3,0,0.5,a\n"
        "1,2019-11-24 00:00:53.965051+00:00,2,1,1,0.25,b\n"
    )
    log, _scratch = read(path)
    assert log.arms == ("14", "2")
    assert log.propensity.tolist() == [0.5, 0.25]
    assert log.quality.tolist() == [0.0, 1.0]
    assert log.time[1] - log.time[0] == pytest.approx(19.202221)
    assert not log.priced
    assert log.total_usd.tolist() == [0.0, 0.0]  # not the row numbers of the first column


def test_a_log_without_costs_has_no_estimate_of_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "log.parquet", tmp_path / "page.html"
    as_frame(world(1500, 2, p_min=0.1)).drop("usd").write_parquet(path)
    named = ["--arm", "model", "--propensity", "p", "--quality", "reward"]
    assert main(["simulate", "replay", str(path), *named, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "the log has no costs" in out
    assert "0.0000 [0.0000, 0.0000]" not in out.splitlines()[1]
    log, _scratch = read(path, arm="model", propensity="p", quality="reward")
    _logged, *outcomes = replay.ask(log, replay.fixed(log))
    for outcome in outcomes:
        assert isinstance(outcome.quality, Estimate)
        assert isinstance(outcome.cost_usd, Refused)
        assert outcome.saving is None
    assert main(["simulate", "frontier", str(path), *named]) == 1
    assert "a frontier needs costs" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_incomplete_rows_are_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    path, count = tmp_path / f"log.{kind}", 400
    frame = pl.DataFrame(
        {
            "arm": ["a", None, *"ab" * 199],
            "propensity": [0.5, 0.5, None, float("nan"), *[0.5] * 396],
            "quality": [1.0] * count,
            "cost_usd": [*[0.1] * 5, None, *[0.1] * 394],
            "time": [*[f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z" for at in range(399)], None],
            "size": [*[1.0] * 6, None, *[1.0] * 393],
        }
    )
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    log, _scratch = read(path, features=("size",))
    assert log.excluded == {
        "without arm": 1,
        "without propensity": 2,
        "without cost": 1,
        "without feature size": 1,
        "without time": 1,
    }
    assert len(log) == count - 6
    assert any("6 of 400 decisions are left out" in note for note in replay.Replay(log).notes())


def test_text_that_is_no_number_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("arm,propensity,quality\n" + "x,0.5,1\n" * 7 + "x,half,1\n")
    with pytest.raises(BadLog, match=r"log\.csv row 8: propensity = 'half' is not a number"):
        read(path)


def test_probabilities_that_do_not_match_the_actions_are_named_with_their_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.dsjson"
    path.write_text('{"_label_cost": -1, "a": [1, 2], "p": [1.0]}\n')
    with pytest.raises(BadLog, match=r"line 1: a lists 2 actions, p 1 probabilities"):
        read(path)


def test_an_arm_may_be_named_by_a_number() -> None:
    assert parse("fixed:arm=14").options == {"arm": "14"}
    with pytest.raises(BadLog, match="cheap=much: option weights"):
        replay.Replay(world(200, 1).log).ask(parse("weighted:cheap=much"))


def test_a_longer_log_is_no_remedy_where_the_log_never_draws_an_arm() -> None:
    found = world(3000, 1, p_min=0.0, learns=False)
    never = replay.Replay(found.log).ask(parse("fixed:arm=great")).quality
    assert isinstance(never, Refused)
    assert "100% of requests never tried it" in str(never)
    assert "a longer log alone does not help" in str(never)
    found = world(300, 1, p_min=0.02, learns=False)
    seldom = replay.Replay(found.log).ask(parse("fixed:arm=great")).quality
    assert isinstance(seldom, Refused)
    assert "or for longer" in str(seldom)


# -- the command


def test_the_command_prints_a_table_and_writes_json_and_a_page(
    journal: tuple[Path, World], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, page = tmp_path / "r.json", tmp_path / "r.html"
    files = ["--json", str(told), "--html", str(page)]
    policies = ["--policy", "fixed:arm=fair", "--policy", "lagrangian:p_min=0.02"]
    assert main(["simulate", "replay", str(journal[0]), *policies, *files]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:4]] == [
        "POLICY",
        "logged",
        "fixed:arm=fair",
        "lagrangian:p_min=0.02",
    ]
    document = json.loads(told.read_text())
    assert document["decisions"] == 1200
    assert document["policies"][1]["quality"]["low"] > 0.6
    assert "<svg" in page.read_text()


def test_a_log_that_cannot_answer_says_what_would_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, path = world(400, 2, p_min=0.01, learns=False), tmp_path / "log.parquet"
    as_frame(found).rename({"model": "arm", "p": "propensity", "reward": "quality"}).write_parquet(
        path
    )
    asked, written = ["simulate", "replay", str(path), "--policy"], tmp_path / "out.json"
    assert main([*asked, "fixed:arm=great", "--json", str(written)]) == 0
    out = capsys.readouterr().out
    (_, one) = json.loads(written.read_text())["policies"]
    assert 0.0 <= one["quality"]["low"] < one["quality"]["high"] <= 1.0
    assert one["quality"]["more"] > 0
    assert one["says"] in out
    assert "great: quality between 0." in out
    assert "too wide to decide against the logged policy's" in out
    assert "more explored requests would decide; only" in out
    assert "log with p_min = 0.25" in out


@pytest.mark.parametrize(
    ("name", "content", "arguments", "said"),
    [
        ("none", None, [], "does not exist"),
        ("empty", "", [], "no journal-"),
        ("log.csv", "a,b\n1,2\n", [], "set --arm to one of its columns: a, b"),
        ("log.parquet", "PAR1 cut", [], "it may be incomplete"),
        ("log.dsjson", "{cut\n", [], "line 1 is not dsjson"),
        ("log.csv", "arm,propensity,quality\nx,0.5,\n", [], "0 of 1 decisions have a quality"),
        ("log.csv", "arm,propensity,quality\n" + "x,0,1\n" * 60, [], "must be in (0, 1]"),
        ("log.csv", "arm,propensity,quality\n" + "x,1,7\n" * 60, [], "must be in [0, 1]"),
        (
            "log.csv",
            "arm,propensity,quality\n" + "x,0.5,1\ny,0.5,1\n" * 60,
            ["--p-min", "0.6"],
            "--p-min must be above 0 and at most the least propensity in the log, 0.5",
        ),
        (
            "log.csv",
            "arm,propensity,quality\n" + "x,0.5,1\ny,0.5,1\n" * 60,
            ["--alpha", "5"],
            "--alpha must be between 0 and 1",
        ),
        (
            "log.csv",
            "arm,propensity,quality\n" + "x,1,1\n" * 60,
            ["--policy", "fixed:arm=y"],
            "no arm y; its arms: x",
        ),
        (
            "log.csv",
            "arm,propensity,quality\n" + "x,1,1\n" * 60,
            ["--policy", "fxied:arm=x"],
            "the policies are: logged, lagrangian",
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    name: str,
    content: str | None,
    arguments: list[str],
    said: str,
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    assert main(["simulate", "replay", str(path), *arguments]) == 1
    assert said in capsys.readouterr().err


def test_an_unknown_route_is_refused_with_the_known_ones(journal: tuple[Path, World]) -> None:
    with pytest.raises(BadLog, match="its routes: digits"):
        log_files.read(journal[0], Scratch(), Columns(), route="letters")


def test_a_refusal_is_a_value_with_its_reason(journal: tuple[Path, World]) -> None:
    found = world(300, 1, p_min=0.0, learns=False)
    outcome = replay.Replay(found.log).ask(parse("fixed:arm=great"))
    assert isinstance(outcome.quality, Bounded)
    assert (outcome.quality.low, outcome.quality.high) == (0.0, 1.0)
    assert "100% of requests never tried it; too wide to decide" in str(outcome.quality)
    assert isinstance(outcome.cost_usd, Estimate)
    assert (outcome.cost_usd.basis, outcome.cost_usd.value) == ("quotes", pytest.approx(COST[2]))
