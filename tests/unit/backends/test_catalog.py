"""The price catalogue: prices of known models as price tables, without guesses."""

import builtins
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices.data import providers
from genai_prices.types import (
    ConditionalPrice,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import (
    Usage as TheirUsage,
)

from tollway.backends import catalog
from tollway.backends.catalog import CatalogMissing, UnknownModel
from tollway.backends.pricing import Price, parse_price
from tollway.backends.types import Details, Usage

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_every_figure_of_the_catalogue_is_a_price_that_can_be_charged() -> None:
    models = {f"{p.id}/{model.id}": model for p in providers for model in p.models}

    found = {entry.name: entry for entry in catalog.entries(now=NOW)}

    assert found.keys() == models.keys()
    assert len(models) > 1000
    for name, entry in found.items():
        if entry.table:
            parse_price(entry.table)
        else:
            assert models[name].get_prices(NOW, None) == ModelPrice(), name


def test_a_model_without_a_figure_is_free_only_if_it_is_marked_so() -> None:
    table = {entry.name: entry.table for entry in catalog.entries(now=NOW)}

    for marked in (
        "openrouter/qwen/qwen3-coder:free",  # by its name
        "google/gemma-3",  # by its title
        "google/gemma-4-31b-it",  # by what the catalogue says of its price
        "github-copilot/gpt-4o",
        "openai/moderation",
    ):
        assert table[marked] == {"free": True}, marked
    for unmarked in ("openrouter/google/lyria-3-pro-preview", "openrouter/stealth/crouton-alpha"):
        assert table[unmarked] == {}, unmarked
        with pytest.raises(UnknownModel, match="in the catalogue without a price; write its price"):
            catalog.find(unmarked)


@pytest.mark.parametrize("tokens", [(1000, 0, 100), (1000, 900, 10), (300_000, 1000, 1)])
def test_a_call_costs_what_the_packages_own_reckoning_says(tokens: tuple[int, int, int]) -> None:
    given, cached, made = tokens
    usage = Usage(input_tokens=given, cached_input_tokens=cached, output_tokens=made)
    theirs = TheirUsage(input_tokens=given, cache_read_tokens=cached, output_tokens=made)
    compared = 0
    for provider in providers:
        if provider.id not in ("openai", "anthropic", "google", "deepseek", "mistral", "x-ai"):
            continue
        for model in provider.models:
            prices = model.get_prices(NOW, {"service_tier": "default"})
            if prices.input_mtok is None or (cached and prices.cache_read_mtok is None):
                continue
            known = model.calc_price(
                theirs,
                provider,
                genai_request_timestamp=NOW,
                price_context={"service_tier": "default"},
            )
            price = parse_price(catalog.find(f"{provider.id}/{model.id}", now=NOW).table)
            cost = price.at_time(NOW.timestamp()).cost_nano(usage)
            # Ours is rounded up to whole nano-dollars.
            assert 0 <= cost - known.total_price * 10**9 < 1, (provider.id, model.id)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("name", "url", "means"),
    [
        ("openai/gpt-4o-mini", "", "openai/gpt-4o-mini"),
        ("gpt-4o-mini", "", "openai/gpt-4o-mini"),
        ("gpt-4o-mini", "http://127.0.0.1:9", "openai/gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "https://api.openai.com/v1", "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini", "https://openrouter.ai/api/v1", "openrouter/openai/gpt-4o-mini"),
        ("claude-sonnet-4-5", "https://api.anthropic.com", "anthropic/claude-sonnet-4-5"),
    ],
)
def test_a_name_means_the_model_of_the_provider_that_is_asked(
    name: str, url: str, means: str
) -> None:
    assert catalog.find(name, url).name == means


def test_an_unknown_model_is_refused_with_names_that_are_near() -> None:
    with pytest.raises(UnknownModel, match=r"is not in the catalogue; write .*gpt-4o-mini"):
        catalog.find("gpt-4o-mni")
    with pytest.raises(UnknownModel, match="is not in the catalogue; `tollway prices list`"):
        catalog.find("zzzzzzzzzz")


def test_another_providers_model_is_never_taken_for_ones_own() -> None:
    with pytest.raises(UnknownModel, match=r"write groq/llama-3\.3-70b-versatile"):
        catalog.find("llama-3.3-70b-versatile", "http://127.0.0.1:8000")


def test_the_lack_of_the_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("genai_prices"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CatalogMissing, match=r'pip install "tollway\[catalog\]"'):
        catalog._providers.__wrapped__()


def entry(prices: Any, *variants: PriceVariant) -> dict[str, Any]:
    model = SimpleNamespace(
        prices=prices, price_variants=list(variants), name="M", context_window=1000
    )
    found = catalog._entry("p/m", model, NOW)
    assert found is not None
    return found.table


FLAT = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(4))


def test_the_price_that_is_in_force_today_is_taken() -> None:
    def since(day: date, mtok: int) -> ConditionalPrice:
        prices = ModelPrice(input_mtok=Decimal(mtok), output_mtok=Decimal(4))
        return ConditionalPrice(StartDateConstraint(day), prices=prices)

    table = entry(
        [ConditionalPrice(prices=FLAT), since(date(2026, 11, 1), 2), since(date(2027, 1, 1), 3)]
    )

    assert table == {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 4.0, "uniform": True}


def test_hours_tiers_and_service_tiers_become_ours() -> None:
    night = TimeOfDateConstraint(time(16, 30, tzinfo=UTC), time(0, 30, tzinfo=UTC))
    half = ModelPrice(input_mtok=Decimal("0.5"), output_mtok=Decimal(2))
    long = ModelPrice(
        input_mtok=TieredPrices(base=Decimal(1), tiers=[Tier(start=1000, price=Decimal(2))]),
        output_mtok=Decimal(4),
    )
    table = entry(
        [ConditionalPrice(prices=long), ConditionalPrice(night, prices=half)],
        PriceVariant({"processing": "batch"}, half),
        PriceVariant({"service_tier": "default"}, ModelPrice(cache_read_mtok=Decimal("0.1"))),
        PriceVariant({"route": "eu"}, half),
    )
    price = parse_price(table)

    def cost(tokens: int, at_s: float = 0.0, tier: str = "") -> int:
        more = Details(service_tier=tier) if tier else None
        usage = Usage(input_tokens=tokens, cached_input_tokens=0, output_tokens=1, more=more)
        return price.at_time(at_s).cost_nano(usage)

    noon = 12 * 3600.0
    assert cost(1000, noon) == 1000 * 1000 + 4000
    assert cost(1001, noon) == 1001 * 2000 + 4000
    assert cost(1000, 17 * 3600.0) == 1000 * 500 + 2000
    assert cost(1000, noon, "batch") == 1000 * 500 + 2000
    assert table["cached_input_usd_per_mtok"] == 0.1


@pytest.mark.parametrize(
    ("name", "is_uniform"),
    [("google/gemini-2.5-pro", True), ("openai/gpt-audio", True), ("openai/whisper-1", False),
     ("openai/gpt-4o-audio-preview", False)],
)  # fmt: skip
def test_images_and_sounds_cost_as_text_unless_only_the_price_of_sound_is_missing(
    name: str, *, is_uniform: bool
) -> None:
    assert parse_price(catalog.find(name).table).is_uniform is is_uniform


def test_a_model_that_costs_nothing_says_so() -> None:
    assert entry(ModelPrice(input_mtok=Decimal(0), output_mtok=Decimal(0))) == {"free": True}


def test_a_price_that_starts_on_a_later_day_is_followed_and_covered_beforehand() -> None:
    name, change = _changing()
    before = datetime.combine(change, time(), UTC) - timedelta(hours=2)
    usage = Usage(input_tokens=1000, output_tokens=100)

    def on(at: datetime) -> Price:
        return parse_price(catalog.find(name, now=at).table)

    tariff = catalog.dated(name, now=before)
    assert tariff is not None
    old, soon, new = (
        tariff.at_time((before + timedelta(minutes=minutes)).timestamp())
        for minutes in (0, 90, 120)
    )
    assert old == on(before)
    assert new == on(before + timedelta(hours=2))
    assert old.cost_nano(usage) == soon.cost_nano(usage) != new.cost_nano(usage)
    assert soon.most.cost_nano(usage) >= max(one.most.cost_nano(usage) for one in (old, new))
    assert tariff.at_time(before.timestamp() + 1.0) is old
    assert catalog.dated(name, now=before + timedelta(hours=3)) is None
    assert catalog.dated("openai/gpt-4o-mini", now=before) is None


def test_a_change_is_covered_for_as_long_before_as_a_call_may_take() -> None:
    name, change = _changing()
    before = datetime.combine(change, time(), UTC) - timedelta(hours=2)
    new = parse_price(catalog.find(name, now=before + timedelta(hours=2)).table)

    def most(call_s: float) -> Price:
        tariff = catalog.dated(name, call_s=call_s, now=before)
        assert tariff is not None
        return tariff.at_time(before.timestamp()).most

    assert most(30.0).output_token_nano < new.output_token_nano
    assert most(7200.0).output_token_nano >= new.output_token_nano


def _changing() -> tuple[str, date]:
    """Return a model of the catalogue whose price rises on a day, and its last such day."""
    for provider in providers:
        for model in provider.models:
            prices = model.prices if isinstance(model.prices, list) else []
            starts = [getattr(one.constraint, "start_date", None) for one in prices]
            start = max((day for day in starts if day is not None), default=None)
            name = f"{provider.id}/{model.id}"
            if start is not None and _output(name, start) > _output(
                name, start - timedelta(days=1)
            ):
                return name, start
    raise AssertionError("no price of the catalogue changes")


def _output(name: str, day: date) -> float:
    table = catalog.find(name, now=datetime.combine(day, time(), UTC)).table
    return float(table.get("output_usd_per_mtok", 0.0))
