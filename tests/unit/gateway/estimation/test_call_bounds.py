"""Bounds of a call: the output limit written, and that the hold covers it."""

import math
import random

import orjson
import pytest

from tollway.backends.output import OutputLimit, other_field, smaller
from tollway.backends.pricing import parse_price
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.types import Call
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.estimation.longest_answers import FIRST, RISE, Longest
from tollway.gateway.routing.call_bounds import FACTOR, SHARES, CallBounds, Unbounded, bounds
from tollway.gateway.routing.plan import Target
from tollway.policies.types import Context

USD = 1_000_000_000
TOKENS = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
HERE = Context(())


def backend(price: dict[str, object] | None = None, **options: object) -> Target:
    return Target(
        name="llm",
        kind="api",
        protocol=OpenAI(),
        transport=None,  # type: ignore[arg-type] # nobody is asked
        price=parse_price(price or TOKENS),
        **options,  # type: ignore[arg-type]
    )


def bound(asked: Target, left_usd: float, longest: float = FIRST, **document: object) -> CallBounds:
    said = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **document}
    call = Call(b"POST", b"/v1/chat/completions", [], orjson.dumps(said))
    call.payload = OpenAI().parse(call)
    quote = CostEstimator().quote(HERE, "llm", asked.price, asked.known(call))
    return bounds(asked, quote, call, longest=longest, left_nano=int(left_usd * USD))


def test_with_plenty_of_money_nothing_is_limited_below_what_the_backend_allows() -> None:
    found = bound(backend(max_output_tokens=8192), 1000.0)
    assert found.wanted == 8192
    assert found.limit(found.maximum_nano) is None


def test_the_limit_leaves_twice_the_longest_answers_whatever_else_is_possible() -> None:
    found = bound(backend(max_output_tokens=100_000), 0.4, longest=1000.0)
    assert found.wanted == FACTOR * 1000
    many = 0.4 * USD // found.maximum_nano
    assert many >= 15  # where the ceiling would let the budget serve none


def test_a_share_of_the_rest_may_be_longer_than_all_before() -> None:
    found = bound(backend(max_output_tokens=100_000), 64.0, longest=1000.0)
    assert found.costs.nano(found.wanted) <= 64.0 * USD // SHARES < found.costs.nano(100_000)


def test_without_a_declared_maximum_no_limit_is_written_that_servers_would_refuse() -> None:
    assert bound(backend(), 9000.0).wanted == 16_384
    assert bound(backend(), 9000.0, longest=20_000.0).wanted == 40_000


def test_a_limit_fits_into_the_context_beside_the_prompt() -> None:
    found = bound(backend(input_tokens_max=2000), 0.4)
    limit = found.limit(found.maximum_nano)
    assert limit is None  # 2000 tokens are all that it could write: nothing is to be limited
    found = bound(backend(input_tokens_max=4000), 0.2, longest=1990.0)
    limit = found.limit(found.maximum_nano)
    assert limit is not None
    assert 3500 < limit.tokens < 3990


@pytest.mark.parametrize("seed", range(20))
def test_what_is_held_covers_all_that_the_limit_allows(seed: int) -> None:
    rng = random.Random(seed)
    price = {
        "input_usd_per_mtok": rng.choice([0, 0.05, 3]),
        "output_usd_per_mtok": 10 ** rng.uniform(-3, 2.5),
        "per_request_usd": rng.choice([0, 1e-5]),
    }
    found = bound(
        backend(price), 10 ** rng.uniform(-4, 3), 10 ** rng.uniform(0, 5), n=rng.choice([1, 3])
    )
    least = found.costs.tokens(found.least_nano)
    for _ in range(50):
        held_nano = rng.randint(found.least_nano, max(found.maximum_nano, found.least_nano))
        limit = found.limit(held_nano)
        assert limit is not None
        assert least <= limit.tokens <= found.wanted
        assert found.costs.nano(limit.tokens) <= held_nano
        if limit.tokens < found.wanted:
            assert found.costs.nano(math.ceil(limit.tokens * 1.01) + 1) > held_nano


def test_a_declared_least_limit_is_kept_and_never_above_the_clients_own() -> None:
    def least(declared: int | None, longest: float, **asked: object) -> int:
        found = bound(backend(min_output_tokens=declared), 0.4, longest=longest, **asked)
        return found.costs.tokens(found.least_nano)

    assert least(1000, 5.0) == 1000
    assert least(1000, 5.0, max_tokens=50) == 50
    assert least(None, 5.0) == 16
    assert least(None, 9000.0) == 256


def test_sounds_are_bounded_only_where_their_price_is_known() -> None:
    asked = {"modalities": ["text", "audio"], "max_tokens": 100}
    with pytest.raises(Unbounded, match="audio_output_usd_per_mtok"):
        bound(backend(), 9.0, **asked)
    priced = bound(backend({**TOKENS, "audio_output_usd_per_mtok": 80.0}), 9.0, **asked)
    assert priced.maximum_nano > 100 * 80_000


def test_money_is_held_for_searches_that_the_server_makes() -> None:
    priced = {**TOKENS, "per_search_usd": 0.01}
    searching = bound(backend(priced, input_tokens_max=1000), 9.0, web_search_options={})
    assert searching.costs.extra_nano >= 0.01 * USD
    assert bound(backend(priced), 9.0).costs.extra_nano == 0


def test_few_answers_of_any_length_reach_twice_the_longest_of_late() -> None:
    """Log-normal lengths; a limit truncates longer ones, and the truncated lengths are learned."""
    rng = random.Random(7)
    longest, cut, wanted = Longest(), 0, []
    for n in range(20_000):
        limit = int(FACTOR * longest.of("t"))
        length = min(rng.lognormvariate(math.log(300), 1.0), limit)
        if n >= 1000:
            cut += length == limit
            wanted.append(limit)
        longest.see("t", length, limit)
    assert cut / 19_000 < 0.005
    assert sum(wanted) / len(wanted) < 300 * 25


def test_one_outlier_raises_what_others_hold_for_a_while_and_not_for_other_tenants() -> None:
    longest = Longest()
    for _ in range(300):
        longest.see("a", 100, 0)
        longest.see("b", 100, 0)
    usual = longest.of("a")
    longest.see("a", 1e6, 0)
    assert longest.of("a") == RISE * usual
    assert longest.of("b") == usual
    for _ in range(200):
        longest.see("a", 100, 0)
    assert longest.of("a") == pytest.approx(usual, rel=0.1)


def test_answers_that_were_kept_short_do_not_lower_the_limit_of_others() -> None:
    longest = Longest()
    for _ in range(300):
        longest.see("a", 10, 10)
    assert longest.of("a") == FIRST


def test_the_longest_answers_outlast_a_restart() -> None:
    longest, again = Longest(), Longest()
    longest.see("a", 5000, 0)
    again.load(longest.save())
    assert again.of("a") == longest.of("a")
    with pytest.raises(ValueError, match="lengths"):
        again.load({"a": [math.nan, 1]})


INSERTED = OutputLimit(62_500, "max_tokens")


@pytest.mark.parametrize(
    ("said", "field", "tokens"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_completion_tokens",
            0,
        ),
        (
            "max_tokens is too large: 62500. This model supports at most 16384 completion tokens, "
            "whereas you provided 62500.",
            "",
            8192,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 62500. This model's maximum "
            "context length is 4096 tokens and your request has 100 input tokens",
            "",
            2048,
        ),
        ("max_tokens 62500 must be at most that of the model", "", 15_625),
        ('{"msg": "at most 5 tools", "input": {"max_tokens":62500, "model": "m"}}', "", 0),
        ("messages: field required", "", 0),
        ("temperature must be at most 2", "", 0),
    ],
)
def test_a_refusal_of_an_inserted_limit_says_what_to_send_instead(
    said: str, field: str, tokens: int
) -> None:
    refusal = said.encode()
    assert (other_field(INSERTED, refusal), smaller(INSERTED, refusal)) == (field, tokens)
    replaced = OutputLimit(62_500, "max_tokens", ("max_tokens",))
    assert (other_field(replaced, refusal), smaller(replaced, refusal)) == ("", 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_cost_of_a_limit_is_what_the_price_makes_of_it(seed: int) -> None:
    rng = random.Random(seed)
    price: dict[str, object] = {
        "input_usd_per_mtok": rng.choice([0.1, 0.3, 10 ** rng.uniform(-3, 3)]),
        "output_usd_per_mtok": rng.choice([0.4, 10 ** rng.uniform(-3, 3)]),
        "per_request_usd": rng.choice([0, 1e-5]),
    }
    if rng.random() < 0.5:
        price["tiers"] = [{"above_input_tokens": 20, "input_usd_per_mtok": 2e3,
                           "output_usd_per_mtok": 4e3}]  # fmt: skip
    asked = backend(price, max_output_tokens=10**9)
    found = bound(asked, 10 ** rng.uniform(-3, 4), n=rng.randint(1, 3))
    costs = found.costs
    assert costs.unrounded_nano is not None
    for tokens in (0, 1, 7, found.wanted, 10**6, 10**9, 10**15, 10**18):
        expected = asked.price.foreseen_nano(costs.fixed, tokens * costs.answers)
        assert costs.nano(tokens) == expected


def test_a_backend_that_begins_to_charge_for_tokens_has_bounds_from_then_on() -> None:
    one = backend({"free": True})
    assert not one.has_bounds
    one.reprice(parse_price(TOKENS))
    assert one.has_bounds
    one.reprice(parse_price({"per_request_usd": 0.001}))
    assert not one.has_bounds
