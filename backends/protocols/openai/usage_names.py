"""The names by which providers and model servers report usage, and what each counts.

`usage` combines the counts. A new provider's names are rows here.
"""

COUNTS: dict[str, str] = {
    **dict.fromkeys(
        ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count"), "input"
    ),
    **dict.fromkeys(("inputTokens", "inputTokenCount"), "input"),
    **dict.fromkeys(
        ("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count"),
        "output",
    ),
    **dict.fromkeys(("outputTokens", "outputTokenCount"), "output"),
    **dict.fromkeys(
        ("total_tokens", "totalTokenCount", "totalTokens", "total_token_count"), "total"
    ),
    **dict.fromkeys(
        ("cached_tokens", "num_cached_tokens", "cached_prompt_text_tokens"), "cached_input_tokens"
    ),
    **dict.fromkeys(
        ("prompt_cache_hit_tokens", "cachedContentTokenCount", "cached_content_token_count"),
        "cached_input_tokens",
    ),
    **dict.fromkeys(
        ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"),
        "cached_input_tokens",
    ),
    **dict.fromkeys(
        ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"),
        "cache_write",
    ),
    "cache_write_tokens": "cache_write",
    "reasoning_tokens": "reasoning_tokens",
    "thoughtsTokenCount": "thoughts",
    "thoughts_token_count": "thoughts",
    "toolUsePromptTokenCount": "tool_results",
    "tool_use_prompt_token_count": "tool_results",
    "citation_tokens": "citations",
    "num_search_queries": "searches",
    "search_units": "searches",
    "pages_processed": "pages",
    "pages": "pages",
    "images": "images",
    "prompt_audio_seconds": "audio_s",
    "image_tokens": "billed_image_tokens",  # Cohere's, beside the input
}
"""What a name in a usage object counts."""

_GIVEN = {
    "cached_tokens": "cached_input_tokens",
    "cache_read_input_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write",
    "cache_creation_tokens": "cache_write",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
    "video_tokens": "video_input_tokens",
    "cached_tokens_details": "",  # an object: see CACHED
}
CACHED = {"audio_tokens": "cached_audio_input_tokens", "image_tokens": "cached_image_input_tokens"}
"""What the names in `cached_tokens_details`, within the details of a prompt, count."""

_MADE = {
    "reasoning_tokens": "reasoning_tokens",
    "thinking_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}
WITHIN: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        ("prompt_tokens_details", "input_tokens_details", "prompt_token_details"), _GIVEN
    ),
    "input_token_details": _GIVEN,
    **dict.fromkeys(
        ("completion_tokens_details", "output_tokens_details", "output_token_details"), _MADE
    ),
    "cache_creation": {
        "ephemeral_5m_input_tokens": "cache_write_5m_tokens",
        "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    },
    "server_tool_use": {"web_search_requests": "searches"},
}
"""What the names in an object within a usage object count."""

LISTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "promptTokensDetails": (
        "modality",
        "tokenCount",
        {
            "AUDIO": "audio_input_tokens",
            "IMAGE": "image_input_tokens",
            "VIDEO": "video_input_tokens",
        },
    ),
    "candidatesTokensDetails": (
        "modality",
        "tokenCount",
        {"AUDIO": "audio_output_tokens", "IMAGE": "image_output_tokens"},
    ),
    "cacheTokensDetails": (
        "modality",
        "tokenCount",
        {"AUDIO": "cached_audio_input_tokens", "IMAGE": "cached_image_input_tokens"},
    ),
    "cacheDetails": (
        "ttl",
        "inputTokens",
        {"5m": "cache_write_5m_tokens", "1h": "cache_write_1h_tokens"},
    ),
}
"""What the entries of a list within a usage object count, by their own type."""

BESIDE = frozenset(
    (
        *("cache_read_input_tokens", "cache_creation_input_tokens"),
        *("cacheReadInputTokens", "cacheWriteInputTokens"),
        *("cacheReadInputTokenCount", "cacheWriteInputTokenCount"),
    )
)
"""Names of caches counted beside the input, if the input has a name of the same provider."""

INPUTS = frozenset(("input_tokens", "inputTokens", "inputTokenCount"))
