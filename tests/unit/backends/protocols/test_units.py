"""The table of units: every unit is read, priced, journalled, counted and exported."""

import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tollway.backends.pricing import parse_price
from tollway.backends.types import Details, Usage
from tollway.backends.units import BY_NAME, HOT, MORE, UNITS

ROOT = Path(__file__).resolve().parents[4]


def test_the_fields_of_a_usage_are_the_hot_units_of_the_table_in_order() -> None:
    assert tuple(field.name for field in fields(Usage))[: len(HOT)] == HOT
    assert tuple(unit.name for unit in UNITS if unit.name in HOT) == HOT
    assert {field.name for field in fields(Usage)} - set(HOT) == {"exact", "more"}


def test_names_keys_and_columns_are_each_ones_own() -> None:
    for names in (
        [unit.name for unit in UNITS],
        [unit.price_key for unit in UNITS if unit.price_key],
        [unit.column for unit in UNITS],
        [unit.metric_name for unit in UNITS],
    ):
        assert len(set(names)) == len(names)


def test_a_unit_is_a_part_of_input_or_of_output_or_of_nothing() -> None:
    assert {unit.part_of for unit in UNITS} == {"", "input_tokens", "output_tokens"}


def test_every_further_unit_is_charged_once_at_its_own_price() -> None:
    for unit in MORE:
        table: dict[str, object] = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}
        price = parse_price({**table, unit.price_key: 7})
        usage = Usage(input_tokens=50, output_tokens=50, more=Details(((unit.name, 30.0),)))

        own = 30 * 7_000_000_000 / unit.per
        tokens = 100 if not unit.part_of else 70
        assert price.cost_nano(usage) == math.ceil(own + tokens * 1000), unit
        assert not price.guesses(usage)


def test_a_further_unit_without_a_price_never_costs_less_than_what_it_is_part_of() -> None:
    price = parse_price({"input_usd_per_mtok": 1, "output_usd_per_mtok": 10})
    for unit in MORE:
        if not unit.part_of:
            continue
        plain = Usage(input_tokens=50, output_tokens=50)
        usage = Usage(input_tokens=50, output_tokens=50, more=Details(((unit.name, 30.0),)))

        assert price.cost_nano(usage) >= price.cost_nano(plain), unit
        assert price.guesses(usage) == ((unit.name,) if unit.guessed else ())


NEW_UNIT = """
import sys, csv, tempfile, orjson
from pathlib import Path

import pytest
import tollway.backends.units as units

new = units.Unit("thumbs", "thumbs", "Thumbs", "per_thumb_usd", 1, "0.5")
units.UNITS += (new,)
units.MORE += (new,)
units.BY_NAME["thumbs"] = new
units.MORE_NAMES |= {"thumbs"}

from tollway.backends.protocols.plain import Plain
from tollway.backends.pricing import parse_price
from tollway.backends.types import Call, HttpReply, Payload
from tollway.gateway.cli import config_report
from tollway.gateway.cli.main import main
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.routing.metering import evaluate_reply
from tollway.gateway.observability.counter_families import counter_families
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.exposition import Exposition
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.sinks.records import settlement_row
from tollway.gateway.routing.request_state import Attempt
from tollway.policies.types import Context
from tests.support.journals import Book

price = parse_price({"per_thumb_usd": 0.25})
assert config_report.price(price) == "$0.25 a thumb", config_report.price(price)
backend = Target("b", "cpu", Plain(), None, price)
estimator = CostEstimator()
quote = estimator.quote(Context(()), "b", price, backend.unbound)
body = orjson.dumps({"label": "x", "usage": {"thumbs": 3}})
call = Call(b"POST", b"/", [], payload=Payload({}))
outcome = evaluate_reply(backend, call, HttpReply(200, [], None), body, quote=quote, latency_s=0.1)
assert (outcome.cost_nano, outcome.provenance) == (750_000_000, "usage"), outcome
for _ in range(100):
    estimator.observe(Context(()), "b", quote, price, outcome.usage)
expected = estimator.quote(Context(()), "b", price, backend.unbound).expected_nano
assert abs(expected - 750_000_000) < 10_000_000, expected

metrics, exposition = Metrics(), Exposition()
exposition.add_source(lambda: counter_families(metrics))
metrics.declare("m", ["b"], ["t"])
attempt = Attempt("b", quote, 0.0, 0.1, outcome, 200, [], body, False)
metrics.attempt("m", "t", attempt)
assert b'tollway_thumbs_total{backend="b",route="m",tenant="t"} 3.0' in exposition.render()

from types import SimpleNamespace
turn = SimpleNamespace(id="i", inference=SimpleNamespace(
    route=SimpleNamespace(name="m"), tenant="t", tags={}))
row = settlement_row(turn, 0, attempt, 1.0)
assert row["thumbs"] == 3.0

folder = Path(tempfile.mkdtemp())
book = Book(folder)
book.request("b", row["cost_nano"], **{n: row[n] for n in ("thumbs", "input_tokens")})
out = folder / "focus.csv"
assert main(["report", "focus", str(folder), "--out", str(out)], {}) == 0
(line,) = csv.DictReader(out.open())
assert (line["x_Thumbs"], line["ConsumedQuantity"]) == ("3.0", "3.0"), line
assert line["ConsumedUnit"] == "Thumbs", line
assert main(["report", "daily", str(folder), "--by", "backend", "--format", "json"], {}) == 0
"""


@pytest.mark.integration
def test_a_new_unit_is_one_row_of_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NEW_UNIT], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert '"thumbs": 3' in done.stdout


def test_the_table_has_what_usage_is_known_to_have() -> None:
    known = {
        *HOT,
        *("cache_write_5m_tokens", "cache_write_1h_tokens", "reasoning_tokens"),
        *("audio_input_tokens", "audio_output_tokens", "images", "characters", "pages", "audio_s"),
    }
    assert known <= BY_NAME.keys()
