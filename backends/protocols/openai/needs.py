"""What a request to OpenAI's API needs of a model, read from its body.

    feature       is needed by a request with
    tools         `tools` or `functions` that are not empty
    vision        a part of type `image_url`, `input_image`, `image` or `video_url`
    audio         a part of type `input_audio` or `audio_url`; `audio` among the `modalities`
    files         a part of type `file` or `input_file`
    json_schema   `response_format` or `text.format` of type `json_schema`
    json_object   the same of type `json_object`
    reasoning     `reasoning_effort` or `reasoning.effort`, other than `none`
    logprobs      `logprobs`, or `top_logprobs` above 0
    n             `n` or `best_of` above 1
    streaming     `stream`

The messages are only parsed if a search of the body finds the names of parts or the body is too
large to search it (16 MiB take 80 ms, a walk of the messages 3 ms), and only measured if
they might exceed a context: 6 to 8 us of processor time for a short chat, 0.4 ms for 200 messages
of a kilobyte, 5 ms for a megabyte of 25,000 (which takes 7 ms to parse).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tollway.backends.needs import CHARS_A_TOKEN, NOTHING, Needs
from tollway.backends.sliced_json import LARGE_BYTES

_PARTS = {
    "image_url": "vision",
    "input_image": "vision",
    "image": "vision",  # Anthropic's, which some servers take
    "video_url": "vision",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "files",
    "input_file": "files",
}
_WORDS = tuple([b'"%b"' % kind.encode() for kind in _PARTS])
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_READ = ("content", "text", "refusal", "tool_calls", "function", "name", "arguments", "output")
"""Where messages hold text. The context used by images, sounds, files and encrypted reasoning is
not estimated.
"""


_OUTGROWN = (
    b"context_length_exceeded",  # OpenAI, Azure, Groq
    b"maximum context length",  # vLLM, DeepSeek, Mistral, OpenRouter
    b"model's context length",  # SGLang
    b"exceed_context_size",  # llama.cpp
    b"available context size",
    b"max_new_tokens` must be <=",  # TGI, Together
    b"prompt is too long",  # Anthropic, Fireworks
    b"exceeds the maximum number of tokens",  # Gemini
    b"context window",
    b"exceed context limit",  # Anthropic
    b"too long for requested model",  # Bedrock
    b"maximum prompt length",  # xAI
    b"reduce the length of the messages",  # OpenAI, Groq
    b"maximum model length",  # vLLM
    b"max_model_len",
    b"exceeds the maximum allowed length",  # SGLang
    b"inputs` must have less than",  # TGI
    b"tokens in the prompt cannot exceed",  # Cohere
    b"range of input length should be",  # Qwen
)
_READ_BYTES = 16_384  # of a refusal: error messages have some hundred bytes


def outgrown(refusal: bytes) -> bool:
    """Whether a refusal says that the request is too long for the model's context."""
    text = refusal[:_READ_BYTES].lower()
    return any(words in text for words in _OUTGROWN)


def needs(document: Any, body: bytes, room: float) -> Needs:
    """Return the needs of a request.

    `body`: the bytes of the document. `room`: the smallest declared context; a request that
    certainly fits into it is not examined more closely.
    """
    if not isinstance(document, dict):
        return NOTHING
    prompt = document.get("messages") or document.get("prompt") or document.get("input")
    features = {*_fields(document)}
    if len(body) > LARGE_BYTES or any(word in body for word in _WORDS):
        features.update(_parts(prompt))
    output = _output(document)
    tokens = 0.0
    if len(body) + output > room:  # a token of a list may be two bytes, those of texts are six
        tools = sum(text_tokens(document.get(name), None) for name in ("tools", "functions"))
        tokens = tools + text_tokens(document.get("instructions")) + _longest(prompt)
    return Needs(frozenset(features), tokens, output)


def _fields(document: dict[str, Any]) -> Iterator[str]:
    if document.get("tools") or document.get("functions"):
        yield "tools"
    modalities = document.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        yield "audio"
    text = document.get("text")
    for asked in (document.get("response_format"), _member(text, "format")):
        kind = _member(asked, "type")
        if kind in ("json_schema", "json_object"):
            yield kind
    efforts = document.get("reasoning_effort"), _member(document.get("reasoning"), "effort")
    if any(effort not in (None, "none") for effort in efforts):
        yield "reasoning"
    if _asked(document.get("logprobs")) or _above(document.get("top_logprobs"), 0):
        yield "logprobs"
    if any(_above(document.get(name), 1) for name in ("n", "best_of")):
        yield "n"
    if document.get("stream") is True:
        yield "streaming"


def _parts(prompt: Any) -> Iterator[str]:
    """Yield the features that the parts of messages need."""
    if not isinstance(prompt, list):
        return
    for message in prompt:
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else (message,)
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in _PARTS:
                yield _PARTS[kind]


def _longest(prompt: Any) -> float:
    """Estimate the tokens of a prompt; of several prompts, each with a reply, the longest.

    Several texts, or lists of tokens, are several prompts; messages are one.
    """
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        return max(text_tokens(one) for one in prompt)
    if not isinstance(prompt, list):
        return text_tokens(prompt)
    plain, rest = 0, []
    for message in prompt:
        content = message.get("content") if type(message) is dict else None
        if type(content) is str and len(message) == 2:  # nearly all messages: role and content
            plain += _bytes(content)
        else:
            rest.append(message)
    return plain / CHARS_A_TOKEN + text_tokens(rest)


def text_tokens(value: Any, read: Sequence[str] | None = _READ) -> float:
    """Estimate the tokens of the texts in a value; a list of numbers is a list of tokens.

    Of objects only the members `read` are counted; None: all.
    """
    tokens, rest = 0.0, [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            tokens += _bytes(one) / CHARS_A_TOKEN
        elif isinstance(one, list):
            if one and isinstance(one[0], int):
                tokens += len(one)
            else:
                rest += one
        elif isinstance(one, dict):
            rest += one.values() if read is None else [one[name] for name in read if name in one]
    return tokens


def _output(document: dict[str, Any]) -> float:
    """Return the maximum tokens of one reply; of several limits the smallest."""
    limits = [document.get(name) for name in _LIMITS]
    return float(min([limit for limit in limits if type(limit) is int and limit > 0], default=0))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _asked(value: Any) -> bool:
    """Whether log probabilities are requested: `true` in a chat, a number in a completion."""
    return value is True or (isinstance(value, int) and value is not False)


def _above(value: Any, least: int) -> bool:
    return type(value) is int and value > least
