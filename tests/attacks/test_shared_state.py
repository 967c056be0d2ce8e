"""What one tenant can do to another through what the gateway learns and remembers."""

import math
import sys
from collections.abc import Callable
from random import Random

import pytest

from tests.attacks.neighbours import TENANTS
from tollway.backends.concurrency.limiter import AdaptiveLimit
from tollway.backends.dialect import Dialect
from tollway.backends.http.reuse import PAUSE_MAX_S, Reuse
from tollway.backends.pricing import parse_price
from tollway.backends.protocols.openai.stream import TEXT_BYTES_MAX, Completion
from tollway.backends.types import Usage
from tollway.gateway.data_plane.admission import ANONYMOUS_CALLERS, anonymous_caller
from tollway.gateway.data_plane.idempotency import IdempotencyStore, StoredResponse
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.estimation.prompt_cache import BEGINNINGS_MAX, PromptCacheTracker, prompt
from tollway.gateway.features.drift import REQUESTS, InputDrift, stability
from tollway.gateway.features.encoder import MEMO_CHARS_MAX, NUMBERS_MAX, FeatureEncoder
from tollway.gateway.observability.counters import TAGS_MAX, Metrics
from tollway.gateway.routing.circuit_breaker import CircuitBreaker
from tollway.gateway.routing.fallback import RetryBudget
from tollway.gateway.routing.health.rest import Rest
from tollway.gateway.routing.health.suspicion import CALLERS_MAX
from tollway.gateway.routing.hedging import KNOWN_AT, HedgePolicy
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.types import Context

HONEST, MALLORY = TENANTS
HERE = Context((0.5,))
TOKENS = parse_price({"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0})
UNBOUNDED = Usage(exact=False)


def call(estimator: CostEstimator, tenant: str, tokens: float, n: int) -> None:
    quote = estimator.quote(HERE, "llm", TOKENS, UNBOUNDED, tenant=tenant, now_s=float(n))
    used = Usage(input_tokens=100.0, output_tokens=tokens)
    estimator.observe(HERE, "llm", quote, TOKENS, used, tenant=tenant, now_s=float(n))


def quoted(estimator: CostEstimator, tenant: str) -> tuple[int, int, int]:
    quote = estimator.quote(HERE, "llm", TOKENS, UNBOUNDED, tenant=tenant, now_s=5000.0)
    return quote.expected_nano, quote.ceiling_nano, quote.maximum_nano


def test_a_tenants_long_answers_do_not_raise_what_others_are_quoted() -> None:
    estimator = CostEstimator()
    for n in range(400):
        call(estimator, HONEST, 100.0 + n % 10, n)
    call(estimator, MALLORY, 100.0, 400)
    before = quoted(estimator, HONEST)
    for n in range(2000):
        call(estimator, MALLORY, 1.0 if n % 2 else 30_000.0, n)
    for now, was in zip(quoted(estimator, HONEST), before, strict=True):
        assert now < 1.5 * was
    assert quoted(estimator, MALLORY)[0] > 20 * before[0]


def test_two_tenants_of_one_kind_are_quoted_as_one() -> None:
    alone, both = CostEstimator(), CostEstimator()
    for n in range(600):
        call(alone, HONEST, 100.0 + n % 10, n)
        call(both, TENANTS[n % 2], 100.0 + n % 10, n)
    assert quoted(both, HONEST)[0] == pytest.approx(quoted(alone, HONEST)[0], rel=0.1)


def test_models_of_tenants_survive_a_restart() -> None:
    estimator, restarted = CostEstimator(), CostEstimator()
    for n in range(300):
        call(estimator, TENANTS[n % 2], 10.0 if n % 2 else 1000.0, n)
    restarted.load(estimator.save())
    for tenant in TENANTS:
        assert quoted(restarted, tenant)[:2] == quoted(estimator, tenant)[:2]  # the worst decays


def test_a_tenant_cannot_push_anothers_prompts_out_of_the_cache_tracker() -> None:
    tracker = PromptCacheTracker(keeps_s=1e9)
    mine = prompt([("system", 900), ("hello", 100)], HONEST)
    tracker.saw(mine, 0.0)
    for n in range(BEGINNINGS_MAX + 1000):
        tracker.saw(prompt([(n, 10)], MALLORY), 1.0)
    assert len(tracker) <= BEGINNINGS_MAX
    assert tracker.covers(mine, 2.0) == 1.0
    assert tracker.covers(prompt([("system", 900), ("hello", 100)], MALLORY), 2.0) == 0.0


def test_a_tenants_uncached_prompts_do_not_lower_what_others_are_expected_to_save() -> None:
    tracker = PromptCacheTracker(keeps_s=1e9)
    mine, theirs = prompt([("a", 1000)], HONEST), prompt([("a", 1000)], MALLORY)
    for asked in (mine, theirs):
        tracker.saw(asked, 0.0)
    for _ in range(200):
        tracker.answered(theirs, Usage(input_tokens=1000.0, output_tokens=1.0), 1.0)
    assert tracker.expects(theirs, 2.0) < 0.05
    assert tracker.expects(mine, 2.0) == 1.0


def test_a_tenants_slow_calls_neither_use_up_nor_delay_the_second_calls_of_others() -> None:
    hedge = HedgePolicy(0.05)
    for _ in range(2 * KNOWN_AT):
        hedge.observe("a", 0.01, HONEST)
    before = hedge.wait_s("a", HONEST)
    for _ in range(1000):
        hedge.observe("a", 60.0, MALLORY)
        if hedge.wait_s("a", MALLORY) is not None:
            hedge.spend(MALLORY)
    assert hedge.wait_s("a", MALLORY) is None
    assert hedge.wait_s("a", HONEST) == before


def test_a_tenants_failing_requests_do_not_use_up_the_retries_of_others() -> None:
    budget = RetryBudget(0.2)
    while budget.take(MALLORY):
        pass
    assert budget.take(HONEST)


def test_a_tenant_cannot_evict_anothers_stored_responses() -> None:
    store = IdempotencyStore(keeps_s=3600, bytes_max=1 << 20)

    def put(tenant: str, key: bytes, size: int, now_s: float) -> None:
        assert store.begin((tenant, "x", key), b"print", now_s) is None
        store.end((tenant, "x", key), StoredResponse(200, [], b"x" * size), now_s)

    put(HONEST, b"mine", 1000, 0.0)
    for n in range(5000):
        put(MALLORY, b"%d" % n, 4000, 1.0)
    assert store.size_bytes <= 1 << 20
    assert store.begin((HONEST, "x", b"mine"), b"print", 2.0) is not None
    assert store.begin((MALLORY, "x", b"mine"), b"print", 2.0) is None  # nor read it


def test_a_tenants_made_up_tags_leave_some_for_others() -> None:
    metrics = Metrics()
    for n in range(5 * TAGS_MAX):
        metrics.tagged(MALLORY, {"team": f"made-up-{n}"}, 1)
    metrics.tagged(HONEST, {"team": "ads"}, 7)
    assert metrics.tags_nano()["team=ads"] == 7
    assert len(metrics.tags_nano()) <= TAGS_MAX + 1


def test_an_output_limit_that_a_backend_refused_to_one_tenant_binds_no_other() -> None:
    dialect = Dialect()
    dialect.learn_most("llm", 16, MALLORY)
    assert dialect.output_max(MALLORY) == 16
    assert dialect.output_max(HONEST) is None


def test_long_words_are_not_remembered() -> None:
    encoder = FeatureEncoder()
    for n in range(200):
        encoder.encode([], [f"{n}" + "x" * 16_000, f"short{n}"])
    assert max(map(len, encoder._hashes)) <= MEMO_CHARS_MAX


def test_an_odd_first_request_does_not_decide_what_is_read_of_the_others() -> None:
    for odd in ([], [1.0], [1.0, 2.0]):
        encoder = FeatureEncoder()
        encoder.encode(odd, ["odd"], (), MALLORY)
        assert len(encoder.encode([1.0, 2.0, 3.0], [], (), HONEST).dense) == 3
    for wide in (FeatureEncoder(), FeatureEncoder((0.0, 1.0))):
        assert len(wide.encode([1.0] * 1_000_000, [], (), MALLORY).dense) == NUMBERS_MAX
        for tenant in (HONEST, "another"):
            dense = wide.encode([1.0, 2.0, 3.0], [], (), tenant).dense
        assert len(dense) == 3


def test_a_tenant_has_one_say_in_how_many_numbers_are_read() -> None:
    encoder, head = FeatureEncoder(), RidgeRegressor()
    widths = []
    for n in range(500):
        for tenant, size in ((HONEST, 8), ("another", 8), (MALLORY, n)):
            context = encoder.encode([1.0] * size, ["a few words"], (), tenant)
            head.learn(context, "a", 1.0)
            widths.append(len(context.dense))
    assert len({*widths}) <= 2
    assert [*dict.fromkeys(widths[6:])] == [widths[-1]]
    restarted = FeatureEncoder()
    restarted.load(encoder.save())
    narrow = restarted.encode([1.0], ["a few words"], (), MALLORY)
    assert len(narrow.dense) == widths[-1]


def test_made_up_words_neither_widen_a_policy_nor_change_what_it_says_of_others() -> None:
    rng, encoder, head = Random(0), FeatureEncoder(), RidgeRegressor()

    def of(text: str, tenant: str) -> float:
        return head.predict(encoder.encode([], [text], (), tenant), ["a"])[0]

    for n in range(2000):
        text, right = (("summarize this", 1.0), ("prove this", 0.0))[n % 2]
        head.learn(encoder.encode([], [text], (), HONEST), "a", right)
    width = len(head.features(encoder.encode([], ["prove this"])))
    for _ in range(5000):
        words = " ".join(f"w{rng.getrandbits(60)}" for _ in range(rng.randrange(40)))
        head.learn(encoder.encode([], [words], [words], MALLORY), "b", rng.random())
    assert of("summarize this", HONEST) > 0.8
    assert of("prove this", HONEST) < 0.2
    assert len(head.features(encoder.encode([], ["prove this"]))) == width


def test_many_addresses_without_a_key_cannot_open_a_breaker_for_others() -> None:
    breaker = CircuitBreaker()
    callers = {anonymous_caller(f"2001:db8::{n:x}") for n in range(10_000)}
    assert len(callers) == ANONYMOUS_CALLERS < CALLERS_MAX
    for n in range(1000):
        breaker.suspected(float(n), sorted(callers)[n % len(callers)])
    assert breaker.allows(1000.0, HONEST)


def test_a_tenants_rate_limit_at_a_backend_rests_that_tenant_alone() -> None:
    rest = Rest()
    for n in range(100):
        rest.begin(float(n), 60.0, MALLORY)
    assert rest.left_s(100.0, MALLORY) > 0.0
    assert rest.left_s(100.0, HONEST) == 0.0


def test_connections_that_are_not_reused_are_so_for_an_hour_at_most() -> None:
    reuse = Reuse()
    for n in range(1000):
        reuse.closed(chunked=True, now_s=float(n * 1000))
    assert reuse.allows(chunked=True, now_s=999_000.0 + PAUSE_MAX_S)
    assert reuse.allows(chunked=False, now_s=0.0)


NUMBERS = [
    *(lambda n: 1e9, lambda n: -1e300, lambda n: math.nan, lambda n: 1e9 if n % 2 else -1e9),
    *(lambda n: 10.0 ** (n % 90), lambda n: 1e-9 * n, lambda n: 1.02 ** min(n, 3000)),
]


@pytest.mark.parametrize("sent", NUMBERS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_tenants_numbers_do_not_squash_those_of_others(
    sent: Callable[[int], float], first: bool
) -> None:
    """Nor does a policy that has learned from them forget which arm is right for whom."""
    rng = Random(0)
    encoder, head = FeatureEncoder(), RidgeRegressor()

    def honest(label: bool = True) -> tuple[float, bool]:
        value = rng.uniform(0.0, 10.0)
        context = encoder.encode([value], [], (), HONEST)
        if label:
            head.learn(context, "a", float(value > 5.0))
        return head.predict(context, ["a"])[0], value > 5.0

    for _ in range(0 if first else 1000):
        honest()
    for n in range(10_000):
        context = encoder.encode([sent(n)], [], (), MALLORY)
        if n % 10 == 0:
            head.learn(
                context, "b", 0.0
            )  # another arm: what it may do with labels is bounded there
            honest(label=n > 5000 or n % 20 == 0)
    right = [(predicted > 0.5) is wanted for predicted, wanted in (honest() for _ in range(500))]
    assert sum(right) > 0.9 * len(right)
    low, high = (encoder.encode([value], [], (), HONEST).dense[0] for value in (2.0, 8.0))
    assert high - low > 0.2


def limited(late_s: dict[str, float], *, refuses: str = "") -> int:
    """Return a backend's limit after a while of calls, a tenth of them the honest tenant's."""
    limiter, rng, now_s = AdaptiveLimit(64), Random(0), 0.0
    for n in range(20_000):
        now_s += 0.001
        tenant = HONEST if n % 10 == 0 else MALLORY
        late = late_s.get(tenant, 1.0) if n > 2000 else 1.0
        if n > 2000 and tenant == refuses:
            limiter.refused(now_s, tenant)
        else:
            latency_s = 0.05 * late * rng.uniform(0.9, 1.1)
            limiter.observe(now_s, latency_s, limiter.limit, tenant)
    return limiter.limit


def test_a_tenants_slow_or_refused_calls_do_not_lower_a_backends_limit() -> None:
    untouched = limited({})
    assert limited({MALLORY: 20.0}) > untouched / 2
    assert limited({}, refuses=MALLORY) > untouched / 2
    assert limited({HONEST: 20.0, MALLORY: 20.0}) < untouched / 4  # the backend has a queue


def test_a_tenant_that_was_refused_alone_leaves_a_limit_that_rises_with_others_calls() -> None:
    limiter, now_s = AdaptiveLimit(64), 0.0
    for _ in range(1000):
        now_s += 0.001
        limiter.refused(now_s, MALLORY)
    assert limiter.limit == 1
    for _ in range(200):
        now_s += 0.05
        limiter.refused(now_s, MALLORY)
        limiter.observe(now_s, 0.05, limiter.limit, HONEST)
    assert limiter.limit > 8


def drift_of(inputs: InputDrift) -> list[int]:
    sample = inputs.sample()
    assert sample is not None
    return inputs.found(stability(*sample))


def test_a_tenants_flood_does_not_become_the_reference_of_others() -> None:
    rng, inputs = Random(0), InputDrift()
    for _ in range(3 * REQUESTS):
        inputs.see((rng.gauss(5.0, 1.0),), MALLORY)
    for _ in range(3 * REQUESTS):
        inputs.see((rng.gauss(0.0, 1.0),), HONEST)
    assert drift_of(inputs) == []


def test_a_tenants_flood_does_not_hide_anothers_drift() -> None:
    rng, inputs = Random(0), InputDrift()

    def flood(honest: float) -> None:
        for n in range(20 * REQUESTS):
            if n % 20:
                inputs.see((rng.gauss(0.0, 1.0),), MALLORY)
            else:
                inputs.see((rng.gauss(honest, 1.0),), HONEST)

    flood(0.0)
    flood(0.0)
    assert drift_of(inputs) == []
    flood(3.0)
    assert drift_of(inputs) == [0]


def test_an_endless_stream_is_not_kept() -> None:
    completion = Completion()
    event = b'data: {"choices":[{"index":0,"delta":{"content":"word %d"}}]}\n\n'
    for n in range(3 * TEXT_BYTES_MAX // 80):
        assert completion.feed(event % n) == event % n
    assert sum(map(sys.getsizeof, completion._texts)) < 1.1 * TEXT_BYTES_MAX
    assert completion.spoken_bytes > len(completion.text)
