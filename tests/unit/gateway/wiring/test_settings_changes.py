"""What differs between two configurations is named, and a secret is not shown."""

from tollway.gateway import settings as config
from tollway.gateway.security.keys import hash_key
from tollway.gateway.wiring.settings_changes import checksum, differing

TEXT = """
[server]
admin_key = "0123456789abcdef"
[[backends]]
name = "one"
kind = "cpu"
protocol = "plain"
url = "http://127.0.0.1:9"
price = { per_request_usd = 0.1 }
[[tenants]]
name = "acme"
key_hash = "KEY_HASH"
[[routes]]
name = "m"
path = "/m"
protocol = "plain"
backends = ["one"]
[[budgets]]
name = "day"
limit_usd = 5
window = "day"
"""


def parse(text: str) -> config.Settings:
    return config.parse(text.replace("KEY_HASH", hash_key("0123456789abcdef")), {})


def test_a_changed_setting_is_named_with_both_values() -> None:
    before, after = differing(parse(TEXT), parse(TEXT.replace("limit_usd = 5", "limit_usd = 7")))
    assert before == {"budgets.day.limit_usd": 5.0}
    assert after == {"budgets.day.limit_usd": 7.0}


def test_an_added_table_has_no_values_before() -> None:
    more = TEXT + '[[budgets]]\nname = "hour"\nlimit_usd = 1\nwindow = "hour"\n'
    before, after = differing(parse(TEXT), parse(more))
    assert after["budgets.hour.limit_usd"] == 1.0
    assert set(before.values()) == {None}


def test_secrets_are_neither_shown_nor_part_of_the_checksum() -> None:
    other = parse(TEXT.replace("0123456789abcdef", "fedcba9876543210"))
    assert differing(parse(TEXT), other) == ({}, {})
    assert checksum(parse(TEXT)) == checksum(other)
    assert checksum(parse(TEXT)) != checksum(parse(TEXT.replace("= 5", "= 6")))
