from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tollway.gateway.registry.records import NAME, Record, Records, versions
from tollway.gateway.settings import ConfigError, ModelConfig, parse

MODEL = """
[registry]
kind = "folder"
[[models]]
name = "m"
backend = "cheap"
url = "http://127.0.0.1:{port}"
ports = [9100, 9109]
"""


def model() -> ModelConfig:
    text = two_backends("http://127.0.0.1:1", "http://127.0.0.1:2", more=MODEL)
    return parse(text, {}).models[0]


def test_what_serves_and_what_is_tried_survive_a_restart(tmp_path: Path) -> None:
    record = Record(champion="1", challenger="2", run="r", newest="2")
    Records(tmp_path).put("m", record)
    assert Records(tmp_path).get("m") == record
    assert Records(tmp_path).get("other") == Record()
    assert versions([model()], {"m": "next"}, tmp_path) == {
        "cheap": {"url": "http://127.0.0.1:9100"},
        "next": {"url": "http://127.0.0.1:9101"},
    }
    assert list(versions([model()], {}, tmp_path)) == ["cheap"]


def test_without_a_record_the_configuration_says_what_serves(tmp_path: Path) -> None:
    assert versions([model()], {}, tmp_path) == {}


def test_a_version_that_fits_the_template_no_more_is_refused(tmp_path: Path) -> None:
    Records(tmp_path).put("m", Record(champion="v1"))
    with pytest.raises(ConfigError, match="does not fit url, model and ports"):
        versions([model()], {}, tmp_path)


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"m": 3}')
    with pytest.raises(ConfigError, match="remove it, and the registry's aliases are read again"):
        versions([model()], {}, tmp_path)


def test_keys_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"m": {"champion": "1", "later": true}}')
    assert Records(tmp_path).get("m") == Record(champion="1")
