"""Files that a policy is warmed up from, and how replies are scored."""

import json
from pathlib import Path
from typing import Any

import polars
import pytest

from tollway.gateway.cli.warm_up_files import BadFile, captures, groups, key_of, prompts, table
from tollway.gateway.cli.warm_up_scores import grade, judged, score
from tollway.simulations.parquet import rows

ROUTERBENCH = """\
sample_id,prompt,eval_name,small,large,small|model_response,small|total_cost,large|total_cost
1,2 plus 2?,sums,0.0,1.0,5,0.001,0.01
2,3 plus 3?,sums,1,1,6,0.001,0.01
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_text_file_has_a_prompt_per_line_and_answers_beside_it(tmp_path: Path) -> None:
    asked = written(tmp_path, "asked.txt", "2 plus 2?\n\n3 plus 3?\n")
    answers = written(tmp_path, "answers.txt", "4\n6\n")
    first, second = prompts(asked, answers)
    assert first["request"]["messages"] == [{"role": "user", "content": "2 plus 2?"}]
    assert [first["answer"], second["answer"]] == ["4", "6"]
    with pytest.raises(BadFile, match="fewer than"):
        list(prompts(asked, written(tmp_path, "few.txt", "4\n")))


def test_lines_of_json_may_be_prompts_messages_or_requests(tmp_path: Path) -> None:
    asked: list[Any] = [
        "a text",
        {"question": "2 plus 2?", "answer": "4"},
        {"messages": [{"role": "user", "content": "x"}], "regex": "^4$"},
        {"request": {"messages": [], "temperature": 0}, "schema": {"type": "integer"}},
    ]
    path = written(tmp_path, "asked.jsonl", "\n".join(map(json.dumps, asked)))
    made = list(prompts(path))
    assert made[0]["request"]["messages"][0]["content"] == "a text"
    assert made[1]["answer"] == "4"
    assert made[2]["regex"] == "^4$"
    assert made[3]["request"]["temperature"] == 0
    assert len({key_of(one) for one in made}) == 4


@pytest.mark.parametrize("row", ['{"text": "x"}', "[1]", "{"])
def test_a_row_without_a_prompt_is_named(row: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="row 1"):
        list(prompts(written(tmp_path, "asked.jsonl", row)))


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_table_of_routerbench_s_form_has_a_quality_for_each_backend(
    kind: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "table.csv", ROUTERBENCH)
    if kind == "parquet":
        polars.read_csv(path).write_parquet(tmp_path / "table.parquet")
        path = tmp_path / "table.parquet"
    if kind == "jsonl":
        lines = polars.read_csv(path).iter_rows(named=True)
        path = written(tmp_path, "table.jsonl", "\n".join(map(json.dumps, lines)))
    first, second = table(path, {"local": "small"}, ["local", "large"], rows)
    assert first["qualities"] == {"local": 0.0, "large": 1.0}
    assert second["qualities"] == {"local": 1.0, "large": 1.0}
    assert first["request"]["messages"][0]["content"] == "2 plus 2?"


def test_a_table_may_have_its_scores_in_an_object(tmp_path: Path) -> None:
    scored = [
        {"prompt": "x", "q": {"a": 0.5, "b": 1}, "c": {"a": 1}},
        {"prompt": "y", "q": {"b": 0}},
    ]
    path = written(tmp_path, "table.jsonl", "\n".join(map(json.dumps, scored)))
    assert [one["qualities"] for one in table(path, {}, ["a", "b"], rows)] == [
        {"a": 0.5, "b": 1.0},
        {"b": 0.0},
    ]


def test_a_table_without_a_backend_s_scores_says_what_it_has(tmp_path: Path) -> None:
    path = written(tmp_path, "table.csv", ROUTERBENCH)
    with pytest.raises(BadFile, match=r"--column BACKEND=COLUMN, from: .*large, .*small"):
        list(table(path, {}, ["local"], rows))
    bad = written(tmp_path, "bad.csv", ROUTERBENCH.replace("0.0,1.0", "7,1.0"))
    with pytest.raises(BadFile, match="small = '7' is not from 0 to 1"):
        list(table(bad, {}, ["small"], rows))


def test_captures_are_asked_without_a_stream(tmp_path: Path) -> None:
    row = {"request": {"messages": [], "stream": True, "stream_options": {}}, "reply": {}}
    (made,) = captures(written(tmp_path, "captures.jsonl", json.dumps(row)))
    assert made == {"request": {"messages": []}}
    with pytest.raises(BadFile, match="no request"):
        list(captures(written(tmp_path, "bad.jsonl", "{}")))


@pytest.mark.parametrize(
    ("document", "answer", "quality"),
    [
        ({"answer": "4"}, "So 2 + 2 = 4", 1.0),
        ({"answer": "4"}, "So 2 + 2 = 5", 0.0),
        ({"answer": 4}, "4", 1.0),
        ({"answer": "Paris"}, "paris.", 1.0),
        ({"regex": r"^\d+$"}, "12", 1.0),
        ({"regex": r"^\d+$"}, "twelve", 0.0),
        ({"schema": {"type": "integer"}}, "12", 1.0),
        ({"schema": {"type": "integer"}}, "twelve", 0.0),
        ({"schema": {"type": "integer"}, "answer": "12"}, "13", 0.0),
        ({}, "4", None),
    ],
)
def test_a_reply_is_scored_by_what_is_known(
    document: Any, answer: str, quality: float | None
) -> None:
    assert score(document, answer) == quality


@pytest.mark.parametrize(
    ("reply", "quality"),
    [("7", 0.7), ("Grade: 10", 1.0), ("0", 0.0), ("11", None), ("good", None), (None, None)],
)
def test_a_grade_is_a_number_from_0_to_10(reply: Any, quality: float | None) -> None:
    assert grade(reply) == quality


def test_a_judge_is_shown_the_question_the_reference_and_the_answer() -> None:
    request = {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 plus 2?"}]}]}
    shown = json.loads(
        judged({"request": request, "answer": "4"}, "five")["messages"][-1]["content"]
    )
    assert shown == {"request": "user: 2 plus 2?", "reference": "4", "answer": "five"}


def test_a_row_s_limit_is_put_into_its_request(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "max_tokens": 7}, {"request": {"max_tokens": 3}, "max_tokens": 7}]
    path = written(tmp_path, "asked.jsonl", "\n".join(map(json.dumps, rows)))
    assert [one["request"]["max_tokens"] for one in prompts(path)] == [7, 3]


def test_groups_are_cut_by_number_and_by_bytes() -> None:
    requests = [{"prompt": "x" * size} for size in (10, 10, 10, 500, 10, 200, 200)]
    made = list(groups(requests, 2, 300))
    assert [len(group) for group in made] == [2, 1, 1, 2, 1]
    assert [one for group in made for one in group] == requests
    assert list(groups([], 2, 300)) == []
