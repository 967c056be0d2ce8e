"""Tables of sources: which keys a column of integers can have."""

from tollway.gateway.features.sources.table import SourceTable


def test_a_number_has_one_key() -> None:
    table = SourceTable("users", "id", {"tier": "tier"}, integer_keys=True)
    keys = ["17", "017", "-0", "00", "0", "-17", "--17", "\u0661\u0667", "1" * 19]
    assert table.parsed(keys) == {17: "17", 0: "0", -17: "-17"}
