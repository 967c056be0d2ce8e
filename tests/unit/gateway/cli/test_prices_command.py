"""`tollway prices`, and backends that take their price from the catalogue."""

import json
import re
from pathlib import Path

import pytest

from tollway.gateway import settings
from tollway.gateway.cli.main import main
from tollway.gateway.settings.errors import ConfigError

HEAD = """
[server]
allow_anonymous = true

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["one"]

[[backends]]
name = "one"
kind = "api"
protocol = "openai"
"""
OPENAI = 'url = "https://api.openai.com/v1"\n'
MINI = 'model = "gpt-4o-mini"\n'
WRITTEN = "price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.9 }\n"


def parsed(text: str) -> settings.BackendConfig:
    return settings.parse(HEAD + OPENAI + text, {}).backends[0]


@pytest.mark.parametrize(
    "text",
    [
        'price = "catalog"\n' + MINI,
        'price = "catalog"\ncatalog = "openai/gpt-4o-mini"\n',
        'price = "catalog"\nmodel = "my-deployment"\ncatalog = "gpt-4o-mini"\n',
        "price = { catalog = true }\n" + MINI,
    ],
)
def test_a_known_models_price_is_that_of_the_catalogue(text: str) -> None:
    price = parsed(text).parsed_price()

    assert (price.input_token_nano, price.output_token_nano) == (150, 600)
    assert price.cached_input_token_nano == 75


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('price = "catalog"\nmodel = "gpt-4o-mni"\n', r"backends\[0\]\.model .*write gpt-4o-mini"),
        ('price = "catalog"\ncatalog = "gpt-4o-mni"\n', r"backends\[0\]\.catalog .*gpt-4o-mini"),
        (
            'price = "catalog"\ncatalog = "openrouter/stealth/crouton-alpha"\n',
            r"backends\[0\]\.catalog .*without a price; write its price",
        ),
        ('price = "catalog"\n', r"backends\[0\]\.catalog.*is missing.*gpt-4o-mini"),
        (WRITTEN + 'catalog = "gpt-4o-mini"\n', r"catalog.* applies only to price = .catalog."),
        ('price = "catalogue"\n' + MINI, r"backends\[0\]\.price"),
    ],
)
def test_what_the_catalogue_does_not_have_stops_the_start(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    (problem,) = [str(problem) for problem in caught.value.problems]
    assert re.search(says, problem), problem


def file(folder: Path, text: str) -> str:
    path = folder / "tollway.toml"
    path.write_text(HEAD + OPENAI + text)
    return str(path)


def test_list_and_show_tell_names_and_prices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "list", "openai/gpt-4o-mini"], {}) == 0
    assert "openai/gpt-4o-mini " in capsys.readouterr().out
    assert main(["prices", "list", "gpt-4o-mini", "--json"], {}) == 0
    assert "openai/gpt-4o-mini" in {one["name"] for one in json.loads(capsys.readouterr().out)}
    assert main(["prices", "list", "no such model"], {}) == 1
    capsys.readouterr()
    assert main(["prices", "show", "openai/gpt-4o-mini"], {}) == 0
    assert "input_usd_per_mtok = 0.15\n" in capsys.readouterr().out
    assert main(["prices", "show", "gpt-4o-mni"], {}) == 1
    assert "write gpt-4o-mini" in capsys.readouterr().err


def test_list_tells_what_is_free_from_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    def prices_of(name: str) -> set[str]:
        assert main(["prices", "list", name], {}) == 0
        (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(name)]
        return set(row.split()[-3:])

    assert prices_of("openrouter/stealth/crouton-alpha") == {"unknown"}
    assert prices_of("google/gemma-4-31b-it") == {"free"}


def test_what_show_prints_is_a_price(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "deepseek/deepseek-chat"):
        assert main(["prices", "show", name], {}) == 0
        table = capsys.readouterr().out.replace("[price]", "[backends.price]")
        text = HEAD + OPENAI + table
        assert settings.parse(text, {}).backends[0].parsed_price().input_token_nano > 0


def test_drift_has_an_exit_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, WRITTEN + MINI)

    assert main(["prices", "diff", path], {}) == 1
    told = capsys.readouterr().out
    assert "one: a million output tokens $0.9, in the catalogue $0.6 (openai/gpt-4o-mini)" in told
    assert main(["prices", "diff", path, "--json"], {}) == 1
    (backend,) = json.loads(capsys.readouterr().out)["backends"]
    units = [change["unit"] for change in backend["differs"]]
    assert units == ["cached_input_tokens", "output_tokens"]


@pytest.mark.parametrize("price", ['price = "catalog"\n' + MINI, WRITTEN + 'model = "my-own"\n'])
def test_the_catalogues_own_and_unknown_models_do_not_drift(tmp_path: Path, price: str) -> None:
    assert main(["prices", "diff", file(tmp_path, price)], {}) == 0


def test_update_changes_nothing_and_says_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, WRITTEN + MINI)
    before = Path(path).read_text()

    assert main(["prices", "update", path], {}) == 0
    told = capsys.readouterr().out
    assert "pip install --upgrade genai-prices" in told
    (line,) = [line for line in told.splitlines() if line.startswith("price = ")]
    assert parsed(line + "\n" + MINI).parsed_price().output_token_nano == 600
    assert Path(path).read_text() == before
