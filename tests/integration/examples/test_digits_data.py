"""The digits data: no image that is sent was trained on."""

import numpy as np
import pytest

from examples.digits.data import halves, traffic

pytestmark = pytest.mark.integration  # it imports scikit-learn


def test_the_halves_share_no_image_and_are_the_same_each_time():
    train, held_out = halves()
    again = halves()[1]

    rows = {image.tobytes() for image in train.images}
    assert len(train.labels) + len(held_out.labels) == 1797
    assert not any(image.tobytes() in rows for image in held_out.images)
    assert np.array_equal(held_out.images, again.images)


def test_traffic_goes_through_all_images_before_it_repeats_one():
    held_out = halves()[1]
    sent = list(traffic(held_out, 2 * 899 + 5, seed=3))

    first, second = sent[:899], sent[899:1798]
    assert len(sent) == 2 * 899 + 5
    assert sorted(label for _, label in first) == sorted(held_out.labels)
    assert len({image.tobytes() for image, _ in first}) == len(
        {image.tobytes() for image in held_out.images}
    )
    assert [label for _, label in first] != [label for _, label in second]


def test_traffic_carries_true_labels():
    held_out = halves()[1]
    truth = {
        image.tobytes(): label
        for image, label in zip(held_out.images, held_out.labels, strict=True)
    }

    assert all(truth[image[0].tobytes()] == label for image, label in traffic(held_out, 50))
