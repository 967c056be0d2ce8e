"""Usage as the Gemini API reports it: tokens, the tier that served them, and searches.

Tokens are read by the table of all providers. A grounded answer lists its search queries; models
before Gemini 3 are billed for one search a request, however many queries it took.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tollway.backends.protocols.openai import usage
from tollway.backends.stream_text import PARTS_MAX
from tollway.backends.types import Details, Usage

_TIERS = {
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_OFFPEAK": "offpeak",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
_BY_REQUEST = ("gemini-1", "gemini-2")


def of(documents: Iterable[Any]) -> Usage | None:
    """Return the usage of a reply: of the parts of a stream, the last report and all searches.

    None if none is reported. Raises ValueError if a count is not a number, or below 0.
    """
    reported: Usage | None = None
    searched = 0
    for document in documents:
        if isinstance(document, dict):
            reported = read(document) or reported
            searched = max(searched, searches(document))
    return None if reported is None else with_searches(reported, searched)


def read(document: dict[str, Any]) -> Usage | None:
    """Return the tokens that a document reports, with their tier."""
    reported = usage.of(document)
    member = document.get("usageMetadata")
    tier = _TIERS.get(str(member.get("trafficType"))) if isinstance(member, dict) else None
    if reported is None or tier is None:
        return reported
    more = reported.more or Details()
    return replace(reported, more=replace(more, service_tier=more.service_tier or tier))


def searches(document: dict[str, Any]) -> int:
    """Return how many searches a document's grounding is billed for."""
    queries = 0
    candidates = document.get("candidates")
    for candidate in candidates[:PARTS_MAX] if isinstance(candidates, list) else ():
        grounding = candidate.get("groundingMetadata") if isinstance(candidate, dict) else None
        listed = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
        queries += len(listed) if isinstance(listed, list) else 0
    by_request = str(document.get("modelVersion")).startswith(_BY_REQUEST)
    return min(queries, 1) if by_request else queries


def with_searches(reported: Usage, searched: int) -> Usage:
    """Return a usage with searches."""
    if not searched:
        return reported
    return usage.with_units(reported, (("searches", float(searched)),))
