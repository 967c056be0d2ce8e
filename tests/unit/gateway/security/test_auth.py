import base64

import pytest

from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.security.keys import ANONYMOUS, check_hash, hash_key, is_key, new_key, verify

ACME, OTHER = "tw_" + "a" * 49, "tw_" + "b" * 49


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]


def test_a_new_key_is_random_and_carries_its_checksum() -> None:
    first, second = new_key(), new_key()
    assert first != second
    assert len(first) == 52
    assert is_key(first)


@pytest.mark.parametrize("at", [3, 20, 45, 51])
def test_a_mistyped_key_is_detected_by_its_checksum(at: int) -> None:
    key = new_key()
    wrong = "0" if key[at] != "0" else "1"
    assert not is_key(key[:at] + wrong + key[at + 1 :])


def test_hashes_are_the_standard_ones() -> None:
    # From `printf abc | sha256sum`, and RFC 4231's second case.
    assert hash_key("abc") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert hash_key("what do ya want for nothing?", "Jefe") == (
        "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_a_key_is_verified_against_its_own_hash_and_pepper_only() -> None:
    assert verify(ACME, hash_key(ACME))
    assert not verify(OTHER, hash_key(ACME))
    assert verify(ACME, hash_key(ACME, "pepper"), "pepper")
    assert not verify(ACME, hash_key(ACME, "pepper"), "salt")
    assert not verify(ACME, hash_key(ACME, "pepper"))
    assert verify(ACME, hash_key(ACME), "pepper"), "a pepper added later leaves older hashes valid"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "64 hex digits"),
        ("sha256:abc", "64 hex digits"),
        ("md5:" + "0" * 64, "64 hex digits"),
        ("sha256:" + "0" * 64 + "\n", "64 hex digits"),
        pytest.param(new_key(), "is a key, not a hash", id="a key"),
    ],
)
def test_what_is_no_hash_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_hash(text)


@pytest.mark.parametrize("pepper", [None, "pepper"])
def test_a_tenant_is_found_by_its_key_again_and_again(pepper: str | None) -> None:
    keys = Authenticator({hash_key(ACME, pepper): "acme"}, pepper=pepper)
    assert [keys.tenant(bearer(ACME)) for _ in range(3)] == ["acme"] * 3
    assert keys.tenant([(b"authorization", b"bearer  " + ACME.encode() + b" ")]) == "acme"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer(OTHER),
        bearer(ACME[:-1]),
        bearer(""),
        [(b"authorization", b"Basic " + ACME.encode())],
        [(b"authorization", b"Token " + ACME.encode())],
        [(b"authorization", b"Bearer:" + ACME.encode())],
        [(b"x-api-key", b"Bearer " + ACME.encode())],
        [(b"x-api-key", ACME.encode()), (b"x-api-key", ACME.encode())],
        [*bearer(ACME), (b"x-api-key", OTHER.encode())],
        [(b"cookie", ACME.encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Bearer " + b"x" * 10_000_000)],
        [(b"authorization", b"Bearer ' OR 1=1 --")],
        [*bearer(ACME), *bearer(OTHER)],
        [*bearer(OTHER), *bearer(ACME)],
        [*bearer(ACME), *bearer(ACME)],
    ],
)
def test_a_request_without_exactly_one_known_key_is_refused(
    headers: list[tuple[bytes, bytes]],
) -> None:
    keys = Authenticator({hash_key(ACME): "acme"}, admin_hash=hash_key("admin"))
    assert keys.tenant(headers) is None
    assert not keys.is_admin(headers)


def test_guesses_are_not_remembered() -> None:
    keys = Authenticator({hash_key(ACME): "acme"})
    for guess in range(1000):
        keys.tenant(bearer(f"tw_{guess}"))
    keys.tenant(bearer(ACME))
    assert list(keys._remembered.values()) == [("acme", 0.0)]


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollway.gateway.data_plane.authentication._REMEMBERED_MAX", 4)
    keys = Authenticator({hash_key(ACME): "acme"})
    for spaces in range(1, 20):  # the same key, each time in another spelling of the header
        assert keys.tenant([(b"authorization", b"Bearer" + b" " * spaces + ACME.encode())])
    assert len(keys._remembered) <= 4


def test_an_open_gateway_serves_strangers_but_not_a_mistyped_key_of_ours() -> None:
    keys = Authenticator({hash_key(ACME): "acme"}, open_to_all=True)
    assert keys.tenant([]) == ANONYMOUS
    assert keys.tenant(bearer("sk-what-a-client-library-insists-on")) == ANONYMOUS
    assert keys.tenant(bearer(ACME)) == "acme"
    assert keys.tenant(bearer(OTHER)) is None


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
def test_a_key_is_taken_from_where_sdks_put_it(name: bytes) -> None:
    keys = Authenticator({hash_key(ACME): "acme"}, admin_hash=hash_key("admin"))
    for _ in range(2):
        assert keys.tenant([(b"accept", b"*/*"), (name, ACME.encode())]) == "acme"
    assert not keys.is_admin([(name, ACME.encode())])
    assert keys.is_admin([(b"x-api-key", b"admin")])


def test_a_provider_s_credential_beside_a_key_of_ours_is_passed_over() -> None:
    keys = Authenticator({hash_key(ACME): "acme", hash_key("sk-old"): "old"})
    assert keys.tenant([*bearer(ACME), (b"x-api-key", b"sk-ant-1")]) == "acme"
    assert keys.tenant([*bearer("eyJ0." * 2000), (b"api-key", ACME.encode())]) == "acme"
    assert keys.tenant([*bearer(ACME), (b"x-api-key", ACME.encode())]) == "acme"
    assert keys.tenant([*bearer(ACME), (b"x-api-key", b"sk-old")]) is None, "two tenants at once"


@pytest.mark.parametrize(
    "value",
    [
        b"Basic dXNlcjpwYXNz",
        b'Digest username="tw", realm="r", nonce="n"',
        b"Bearer eyJhbGciOi." + b"x" * 6000,
        b"Bearer \xff\xfe",
        b"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/bedrock/aws4_request",
        b"sk-raw",
        b"",
        b"Bearer",
    ],
)
@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
def test_an_open_gateway_ignores_whatever_an_sdk_must_send(name: bytes, value: bytes) -> None:
    keys = Authenticator({hash_key(ACME): "acme"}, open_to_all=True)
    assert keys.tenant([(name, value)]) == ANONYMOUS
    assert keys.tenant([(name, value), (name, value)]) == ANONYMOUS


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
@pytest.mark.parametrize("scheme", [b"", b"Bearer ", b"bearer   ", b"Basic ", b"Token "])
def test_an_open_gateway_refuses_an_unknown_key_of_ours_wherever_it_stands(
    name: bytes, scheme: bytes
) -> None:
    now = [100.0]
    keys = Authenticator(
        {hash_key(ACME): "acme"},
        ends={hash_key(ACME): 50.0},
        open_to_all=True,
        wall=lambda: now[0],
    )
    for key in (ACME, OTHER, "tw_short", "tw_" + "x" * 5000):
        assert keys.tenant([(name, scheme + key.encode())]) is None
        assert keys.tenant([(b"api-key", b"sk-1"), (name, scheme + key.encode())]) is None


def test_a_key_of_this_gateway_is_recognised_in_any_wrapping() -> None:
    keys = Authenticator(
        {hash_key("sk-old", "p"): "old"}, admin_hash=hash_key("the-admin-key"), pepper="p"
    )
    made, basic = new_key().encode(), b"Basic " + base64.b64encode(b"user:" + new_key().encode())
    for name, value in (
        (b"authorization", b"Bearer " + made),
        (b"authorization", basic),
        (b"authorization", b"Bearer sk-old"),
        (b"authorization", b"Bearer the-admin-key"),
        (b"cookie", b"a=1; session=" + made),
        (b"x-api-key", b"sk-old"),
    ):
        assert keys.is_ours(name, value), value
    for name, value in (
        (b"authorization", b"Bearer sk-provider"),
        (b"authorization", b"Basic dXNlcjpwYXNz"),
        (b"authorization", b"Basic not base64!"),
        (b"cookie", b"raw_tw_1=x"),
        (b"x-api-key", b"\xff"),
    ):
        assert not keys.is_ours(name, value), value


def test_the_control_plane_takes_the_admin_key_and_no_other() -> None:
    keys = Authenticator({hash_key(ACME): "acme"}, admin_hash=hash_key("admin"), open_to_all=True)
    assert keys.is_admin(bearer("admin"))
    assert not keys.is_admin(bearer(ACME))
    assert not keys.is_admin([])
    assert keys.tenant(bearer("admin")) != "acme"


@pytest.mark.parametrize("open_to_all", [True, False])
def test_without_a_configured_admin_key_the_one_that_was_made_counts(open_to_all: bool) -> None:
    keys = Authenticator({}, made_hash=hash_key("made"), open_to_all=open_to_all)
    assert keys.is_admin(bearer("made"))
    assert not keys.is_admin([])
    assert keys.is_open_here is open_to_all
    keys = Authenticator({}, open_to_all=open_to_all)
    assert not keys.is_admin([])
    assert keys.is_open_here is open_to_all


def test_a_configured_admin_key_replaces_the_one_that_was_made() -> None:
    keys = Authenticator(
        {}, admin_hash=hash_key("mine"), made_hash=hash_key("made"), open_to_all=True
    )
    assert keys.is_admin(bearer("mine"))
    assert not keys.is_admin(bearer("made"))
    assert not keys.is_open_here


def test_a_key_ends_at_its_time_and_the_one_that_replaces_it_goes_on() -> None:
    now = [100.0]
    known = {hash_key(ACME): "acme", hash_key(OTHER): "acme"}
    keys = Authenticator(known, ends={hash_key(OTHER): 200.0}, wall=lambda: now[0])
    assert keys.tenant(bearer(OTHER)) == "acme"
    now[0] = 200.0
    assert keys.tenant(bearer(OTHER)) is None
    assert keys.tenant(bearer(ACME)) == "acme"


def test_a_viewer_reads_and_is_no_administrator() -> None:
    keys = Authenticator({}, admin_hash=hash_key("admin"), viewer_hash=hash_key("viewer"))
    assert keys.is_viewer(bearer("viewer"))
    assert keys.is_viewer(bearer("admin"))
    assert not keys.is_admin(bearer("viewer"))
    assert not keys.is_viewer(bearer(ACME))
    assert not keys.is_viewer([])
