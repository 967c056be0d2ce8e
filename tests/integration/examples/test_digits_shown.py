"""The demo's output shows what was counted: lines, bars, picture."""

import numpy as np
import pytest
from matplotlib.image import imread

from examples.digits.client import Answer
from examples.digits.picture import draw
from examples.digits.screen import Screen
from examples.digits.tally import Row

pytestmark = pytest.mark.integration

FIXED = [
    Row("digits-rules", 400, 0.86, 0.004),
    Row("digits-cpu", 400, 0.96, 0.04),
    Row("digits-large", 400, 0.99, 0.4),
]
SPLIT = Row("90/10", 400, 0.963, 0.076)
TOLLWAY = Row("tollway", 400, 0.985, 0.08)


def answers(count):
    return [
        Answer(200, right=n % 9 != 0, backend=FIXED[n % 3].name, cost_usd=0.0002)
        for n in range(count)
    ]


def test_a_run_is_shown_at_each_quarter_where_there_is_no_terminal(capsys):
    with Screen().watch("tollway", 10) as seen:
        for answer in answers(10):
            seen(answer)

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["3/10", "6/10", "9/10", "10/10"]
    assert "right 80.0%  $0.200/1000" in lines[-1]
    assert "cpu 30%, large 30%, rules 40%" in lines[-1]


def test_what_a_server_answers_is_priced_by_its_price(capsys):
    with Screen().watch("digits-cpu", 1, price_usd=0.0001) as seen:
        seen(Answer(200, right=True))

    assert "$0.100/1000" in capsys.readouterr().out


def test_the_table_compares_with_the_best_fixed_backend(capsys):
    Screen().table([*FIXED, TOLLWAY], FIXED[-1], {"tollway": "a note"})

    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "98.50%" in lines["tollway"]
    assert "80.0%" in lines["tollway"]
    assert "0.50" in lines["tollway"]
    assert lines["digits-large"].split()[-2:] == ["-", "-"]


def test_bars_are_proportional_to_their_values(capsys):
    Screen().bars(FIXED)

    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    spend = {name: line.partition("$")[0].count("█") for name, line in lines.items()}
    wrong = {name: line.partition("$")[2].count("█") for name, line in lines.items()}
    assert (spend["digits-large"], spend["digits-cpu"]) == (30, 3)
    assert (wrong["digits-rules"], wrong["digits-cpu"]) == (15, 4)


@pytest.mark.parametrize("count", [1, 50, 1000])
def test_the_picture_is_drawn_for_few_and_many_answers(tmp_path, count):
    path = tmp_path / "picture.png"

    draw(path, TOLLWAY, FIXED, SPLIT, answers(count))

    pixels = imread(path)
    assert pixels.shape[0] > 500
    assert np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0).shape[0] > 50
