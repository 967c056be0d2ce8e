"""Token counts as OpenAI and its imitators report them.

`prompt_tokens` (or `input_tokens`) include the cached ones, `completion_tokens` (`output_tokens`)
the reasoning ones. Some servers leave reasoning out of the completion and count it in
`total_tokens` alone; it is billed as output, so output is what the total leaves after the prompt.
"""

from typing import Any

from backends.reported import number
from backends.types import Usage


def read(member: Any) -> Usage | None:
    """Return the usage in a `usage` object, None where there is none; ValueError for no numbers."""
    if not isinstance(member, dict):
        return None
    given = "prompt_tokens" if member.get("prompt_tokens") is not None else "input_tokens"
    made = "completion_tokens" if member.get("completion_tokens") is not None else "output_tokens"
    if member.get(given) is None:
        return None
    prompt, total = number(member, given), number(member, "total_tokens")
    details = member.get(f"{given}_details")
    cached = number(details, "cached_tokens") if isinstance(details, dict) else 0.0
    return Usage(
        input_tokens=prompt,
        cached_input_tokens=cached,
        output_tokens=max(number(member, made), total - prompt),
    )
