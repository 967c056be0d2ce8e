"""The journal's JSON Schema describes the rows that are written."""

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from tollway.gateway.storage.erasure import strip
from tollway.gateway.storage.journal import segments
from tollway.simulations.world import engine, scenario_file

pytestmark = pytest.mark.integration
EVERY = 7  # of how many rows of a kind one is checked
SCHEMA = json.loads((Path(__file__).parents[3] / "docs/journal.schema.json").read_text())


@pytest.mark.parametrize("name", ["steady", "outage-and-return"])
@pytest.mark.parametrize("cascade", [False, True])
def test_the_rows_of_a_run_are_as_the_schema_says(name: str, cascade: bool, tmp_path: Path) -> None:
    changes = {"workload.requests_per_day": 300, "route.cascade": cascade}
    engine.run(scenario_file.load(name, changes), seed=1, journal=tmp_path)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    kinds: Counter[str] = Counter()
    for path in segments(tmp_path):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            kinds[row["kind"]] += 1
            if kinds[row["kind"]] % EVERY != 1:
                continue
            assert not [error.message for error in validator.iter_errors(row)], row
            of_kind = SCHEMA["$defs"][f"{row['kind'].capitalize()}Row"]["properties"]
            assert row.keys() <= of_kind.keys(), row.keys() - of_kind.keys()
            strip(row, ())
            assert validator.is_valid(row), f"erased: {row}"
    assert kinds.keys() >= {"decision", "attempt", "feedback"}


def test_a_row_with_a_member_of_another_type_is_not_valid() -> None:
    row = {"kind": "change", "time": "now", "budget": "day", "action": "add", "v": 2, "crc": "0"}
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(row)
    row["time"] = 1.0
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(row)
