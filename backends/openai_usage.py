"""Token counts as OpenAI and its imitators report them.

`prompt_tokens` (or `input_tokens`) include the cached ones, `completion_tokens` (`output_tokens`)
the reasoning ones. Some servers leave reasoning out of the completion and count it in
`total_tokens` alone; it is billed as output, so output is what the total leaves after the prompt.
Where neither is there nothing is known of the output, and that is no usage: it was not free.
"""

from typing import Any

from backends.reported import number
from backends.types import Usage


def read(member: Any) -> Usage | None:
    """Return the usage in a `usage` object, None where there is none.

    Raises ValueError where a count is not a number, or below 0.
    """
    if not isinstance(member, dict):
        return None
    given = "prompt_tokens" if member.get("prompt_tokens") is not None else "input_tokens"
    made = "completion_tokens" if member.get("completion_tokens") is not None else "output_tokens"
    if member.get(given) is None:
        return None
    if member.get(made) is None and member.get("total_tokens") is None:
        return None
    prompt, total = number(member, given), number(member, "total_tokens")
    completion = number(member, made)
    if prompt < 0 or completion < 0:
        raise ValueError(f"{prompt:g} and {completion:g} tokens: a count is below 0")
    details = member.get(f"{given}_details")
    cached = number(details, "cached_tokens") if isinstance(details, dict) else 0.0
    return Usage(
        input_tokens=prompt,
        cached_input_tokens=cached,
        output_tokens=max(completion, total - prompt),
    )
