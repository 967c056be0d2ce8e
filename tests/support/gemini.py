"""Replies and streams of the Gemini API, in the bytes that it writes."""

from typing import Any

import orjson

USAGE = {"promptTokenCount": 8, "totalTokenCount": 8}
PARTS: tuple[dict[str, Any], ...] = (
    {
        "candidates": [{"content": {"parts": [{"text": "Hel"}], "role": "model"}, "index": 0}],
        "usageMetadata": {**USAGE, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}]},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "Yx4maM",
    },
    {
        "candidates": [
            {
                "content": {"parts": [{"text": 'lo "{" }'}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 8,
            "candidatesTokenCount": 5,
            "totalTokenCount": 43,
            "thoughtsTokenCount": 30,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "Yx4maM",
    },
)
TEXT = 'Hello "{" }'

EVENTS = tuple([b"data: %b\r\n\r\n" % orjson.dumps(part) for part in PARTS])
"""The stream with `alt=sse`."""

ARRAY = (
    b"[" + orjson.dumps(PARTS[0], option=orjson.OPT_INDENT_2),
    b"\n,\r\n" + orjson.dumps(PARTS[1], option=orjson.OPT_INDENT_2),
    b"\n]\n",
)
"""The stream without it."""
