"""Features: finite, of the order of 1, the same everywhere."""

import math
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.gateway.features.encoder import CLIP, SPARSE_MASK, WORDS, WORDS_MAX, FeatureEncoder
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.policies.types import EMBEDDING


def test_numbers_are_scaled_by_their_declared_range() -> None:
    encoder = FeatureEncoder((0.0, 16.0))

    assert encoder.encode([0.0, 8.0, 16.0], []).dense == (-1.0, 0.0, 1.0)


def test_numbers_without_a_range_find_their_own_scale() -> None:
    encoder, rng = FeatureEncoder(), Random(0)
    for _ in range(500):
        encoder.encode([rng.gauss(1e6, 1e3), rng.gauss(0, 1e-6)], [])

    high, low = encoder.encode([1e6 + 1e3, -1e-6], []).dense
    assert high == pytest.approx(1.0, abs=0.2)
    assert low == pytest.approx(-1.0, abs=0.2)


@given(st.lists(st.lists(st.floats(), max_size=5), max_size=8), st.booleans())
def test_whatever_the_numbers_every_feature_is_finite_and_their_count_is_fixed(
    requests: list[list[float]], ranged: bool
) -> None:
    encoder = FeatureEncoder((0.0, 1.0) if ranged else None)
    size = len(encoder.encode([1.0, 2.0, 3.0], []).dense)

    for numbers in requests:
        dense = encoder.encode(numbers, []).dense
        assert len(dense) == size
        assert all(abs(value) <= CLIP for value in dense)


def test_what_is_missing_or_no_number_counts_as_average() -> None:
    encoder = FeatureEncoder((0.0, 2.0))
    encoder.encode([1.0, 1.0, 1.0], [])

    assert encoder.encode([2.0, math.nan], []).dense == (1.0, 0.0, 0.0)


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_whatever_the_text_every_index_is_in_range_and_the_shape_is_fixed(
    texts: list[str], categories: list[str]
) -> None:
    encoder = FeatureEncoder()

    context = encoder.encode([], ["x", *texts], categories)

    assert len(context.dense) == len(FeatureEncoder().encode([], ["x"]).dense)
    assert all(map(math.isfinite, context.dense))
    assert all(0 <= index <= SPARSE_MASK for index, _ in context.sparse)
    words = context.sparse[: len(context.sparse) - len(categories)]
    assert not words or sum(value**2 for _, value in words) == pytest.approx(WORDS**2)


def test_word_order_matters_through_pairs_and_punctuation_does_not() -> None:
    encoder = FeatureEncoder()

    dog, man = encoder.encode([], ["dog bites man"]), encoder.encode([], ["man bites dog"])
    assert set(dog.sparse) != set(man.sparse)
    assert encoder.encode([], ["Dog, bites (man)!"]).sparse == dog.sparse


def test_a_long_text_is_read_to_its_limit_and_no_further() -> None:
    encoder = FeatureEncoder()
    long = " ".join(str(at) for at in range(10 * WORDS_MAX))

    context = encoder.encode([], [long])

    assert len(context.sparse) <= 2 * WORDS_MAX
    assert context.dense[0] > encoder.encode([], [long[:1000]]).dense[0]


def test_a_category_is_not_a_word_and_knows_its_place() -> None:
    encoder = FeatureEncoder()

    one = encoder.encode([], [], ["de", "fr"]).sparse
    assert one != encoder.encode([], [], ["fr", "de"]).sparse
    assert {index for index, _ in one}.isdisjoint(
        index for index, _ in encoder.encode([], ["de fr"]).sparse
    )


def test_features_are_the_same_in_every_process() -> None:
    code = (
        "from tollway.gateway.features.encoder import FeatureEncoder;"
        "print(FeatureEncoder((0, 1)).encode([0.3], ['some words of text'], ['c']))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    }

    assert len(seen) == 1


def test_scales_survive_a_restart() -> None:
    encoder, copy, rng = FeatureEncoder(), FeatureEncoder(), Random(0)
    for _ in range(50):
        encoder.encode([rng.gauss(5, 2)], [])

    copy.load(encoder.save())

    assert copy.encode([6.0], []) == encoder.encode([6.0], [])


def test_a_context_of_another_length_does_not_fit() -> None:
    encoder = FeatureEncoder(joined=2)
    new = [count for count in range(12) if encoder.fits(count, numbers=False, texts=True)]
    assert new == [2, 7]  # without and with a text
    assert not encoder.fits(1, numbers=True, texts=False)
    assert encoder.fits(9, numbers=True, texts=False)  # how many there are is not known yet
    encoder.encode([1.0, 2.0, 3.0], [])
    known = [count for count in range(12) if encoder.fits(count, numbers=True, texts=False)]
    assert known == [5]


def test_an_embedding_counts_among_the_numbers_that_fit() -> None:
    embeds = FeatureExtractor(text=("text",), embed=lambda text: (0.0,) * EMBEDDING)
    for features in (embeds, FeatureExtractor(text=("text",), embedded=True)):
        fitting = [n for n in range(80) if features.fits((0.0,) * n, more=False)]
        assert fitting == [EMBEDDING, EMBEDDING + 5]
