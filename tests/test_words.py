"""Names and phrases that were replaced by standard terms do not come back.

docs/glossary.md has the standard terms, and the changelog says which name replaced which.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXEMPT = ("CHANGELOG.md", "docs/decisions/", "tests/test_words.py")  # they quote the old names
NAMES = (
    "Teller|Till|Purse|Crew|Seat|Lookout|Passage|Lessons|Upkeep|Ladder|Turn|Verdict"  # of classes
)
REPLACED = re.compile(
    rf"\b(?:{NAMES})\b(?! [a-z])"  # not a sentence that begins with the word: "Turn it off"
    r"|(?i:\bprice\s+of\s+money\b|\btold\s+of\b|\banew\b|\bdearer\b)"
)


def found(text: str) -> list[str]:
    """Return each replaced name or phrase in a text, with the number of its line."""
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}"
        for match in REPLACED.finditer(text)
    ]


def test_replaced_names_and_phrases_stay_away() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    back = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name.startswith(EXEMPT) or path.is_symlink() or not path.is_file():
            continue
        try:
            back += [f"{name}:{one}" for one in found(path.read_text(encoding="utf-8"))]
        except UnicodeDecodeError:  # not a text
            continue
    assert not back, "use the terms of docs/glossary.md:\n" + "\n".join(back)


@pytest.mark.parametrize(
    "text",
    [
        "class Till:",
        "a Verdict, which",
        "the price of\nmoney",
        "is told of",
        "start Anew",
        "dearer",
    ],
)
def test_a_replaced_name_or_phrase_is_seen(text: str) -> None:
    assert len(found(text)) == 1


@pytest.mark.parametrize("text", ["Turn scores into", "until", "a ladder", "Retold offers"])
def test_an_ordinary_word_is_let_pass(text: str) -> None:
    assert not found(text)
