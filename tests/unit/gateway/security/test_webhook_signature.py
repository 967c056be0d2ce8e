"""Signatures of webhooks: what a receiver with a library of Standard Webhooks verifies."""

import base64

import pytest

from tollway.gateway.security.webhook_signature import key_of, signature


def test_the_vector_of_the_specification_is_met() -> None:
    signed = signature(
        key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b'{"test": 2432232314}',
    )
    assert signed == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["0123456789abcdef", "WHSEC_0123456789", "a whsec_ within it"])
def test_any_other_secret_is_used_as_it_is(secret: str) -> None:
    assert key_of(secret) == secret.encode()


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("whsec_not-base64-at-all!", "not base64"),
        ("whsec_h\u00e4h\u00e4h\u00e4h\u00e4h\u00e4", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "not base64"),
        ("whsec_" + base64.b64encode(bytes(15)).decode(), "fewer than 16 bytes"),
        ("whsec_", "fewer than 16 bytes"),
    ],
)
def test_a_secret_that_cannot_be_decoded_is_refused(secret: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        key_of(secret)
