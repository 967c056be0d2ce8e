"""The situations of an LLM server's clients: what is asked, directly and through Tollway."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wire import Ask, document

MODEL = "MODEL"  # stands for the server's model
LLAMA, TRANSFORMERS, LITELLM = "llama-server", "transformers", "litellm"
ALL = (LLAMA, TRANSFORMERS, LITELLM)
CHAT = "/v1/chat/completions"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["age"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Situation:
    """Requests over one connection. `own`: the status that Tollway answers with by itself.

    Such replies cannot be equal; docs/protocols.md says why there are any.
    """

    name: str
    asks: Sequence[Ask]
    servers: Sequence[str] = ALL
    own: int = 0
    merged: bool = False  # a list that Tollway makes of those of all servers: entries are compared


def post(path: str, **members: object) -> Ask:
    return Ask("POST", path, document(**members))


def chat(text: object = "hello there", **members: object) -> Ask:
    said = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return post(CHAT, **{**said, "max_tokens": 8, "temperature": 0, "seed": 7, **members})


def raw(body: bytes, path: str = CHAT, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Ask("POST", path, body, named)


def changed(ask: Ask, **parts: object) -> Ask:
    values = {name: getattr(ask, name) for name in Ask.__dataclass_fields__}
    return Ask(**{**values, **parts})


def one(name: str, ask: Ask, servers: Sequence[str] = ALL, own: int = 0) -> Situation:
    return Situation(name, [ask], servers, own)


GET: Callable[[str], Ask] = lambda path: Ask("GET", path)
ODD = (
    b'{ "model" : "MODEL",\t"max_tokens":5, "user":"a",\n"user":"\\u00e9\\ud83d\\ude00\\/",'
    b'"seed":7,"temperature":0.0e0,"messages":[{"content":"h\\u0065llo","role":"user"}],'
    b'"metadata":{"n":"123456789012345678901234567890"},"x_big":123456789012345678901234567890}  '
)

SITUATIONS = [
    one("a chat", chat()),
    one("a conversation with a system's text",
        post(CHAT, model=MODEL, max_tokens=6, temperature=0, messages=[
            {"role": "system", "content": "be old"}, {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "you"}, {"role": "user", "content": "the sun?"}])),
    one("text of many languages", chat("héllo 北京 😀 \u2028 \"quoted\" \\ \x7f")),
    one("a content of parts", chat([{"type": "text", "text": "hello"}])),
    one("a seed, and a temperature", chat(temperature=0.8, seed=42, top_p=0.9)),
    one("stop", chat(stop=["sun", "rain", "e"], max_tokens=20)),
    one("n = 2", chat(n=2)),
    one("log probabilities", chat(logprobs=True, top_logprobs=2)),
    one("tools", chat(tools=[WEATHER])),
    one("a tool that must be called", chat(tools=[WEATHER], tool_choice="required", max_tokens=60)),
    one("output by a JSON schema", chat(max_tokens=40, response_format={
        "type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}})),
    one("unknown fields", chat(x_unknown={"a": [1, None]}, top_k=5, min_p=0.1)),
    one("odd JSON: large numbers, double members, escapes, white space", raw(ODD)),
    one("a stream", chat(stream=True)),
    one("a stream with its usage", chat(stream=True, stream_options={"include_usage": True})),
    one("a stream that declines its usage",
        chat(stream=True, stream_options={"include_usage": False})),
    one("a stream of two answers", chat(stream=True, n=2, stream_options={"include_usage": True})),
    one("a stream with log probabilities", chat(stream=True, logprobs=True, top_logprobs=2)),
    one("a stream with tools",
        chat(stream=True, tools=[WEATHER], tool_choice="required", max_tokens=60)),
    one("a stream of 200 tokens", chat(stream=True, max_tokens=200)),
    Situation("a client that leaves its stream, and a chat after it",
              [changed(chat(stream=True, max_tokens=200), leave_after=200), chat()]),
    one("a completion", post("/v1/completions", model=MODEL, prompt="hello", max_tokens=8,
                             temperature=0), (LLAMA, TRANSFORMERS, LITELLM)),
    one("a completion of tokens, echoed", post("/v1/completions", model=MODEL, prompt=[5, 6, 7],
                                               max_tokens=4, temperature=0, echo=True),
        (LLAMA, LITELLM)),
    one("a streamed completion", post("/v1/completions", model=MODEL, prompt="hello",
                                      max_tokens=8, temperature=0, stream=True)),
    one("an embedding", post("/v1/embeddings", model=MODEL, input="hello"), (LLAMA, LITELLM)),
    one("embeddings in base64", post("/v1/embeddings", model=MODEL, input=["hello", "you"],
                                     encoding_format="base64"), (LLAMA, LITELLM)),
    one("a response", post("/v1/responses", model=MODEL, input="hello", max_output_tokens=8,
                           temperature=0)),
    one("a streamed response", post("/v1/responses", model=MODEL, input="hello", stream=True,
                                    max_output_tokens=8, temperature=0)),
    one("a message of Anthropic's API", post("/v1/messages", model=MODEL, max_tokens=8,
        temperature=0, messages=[{"role": "user", "content": "hello"}]), (LLAMA, LITELLM)),
    one("a streamed message of Anthropic's API", post("/v1/messages", model=MODEL, max_tokens=8,
        temperature=0, stream=True, messages=[{"role": "user", "content": "hello"}]),
        (LLAMA, LITELLM)),
    one("a count of the tokens of Anthropic's API", post("/v1/messages/count_tokens", model=MODEL,
        messages=[{"role": "user", "content": "hello"}]), (LLAMA, LITELLM)),
    one("a decision (`/v1/systemone`)", post("/v1/systemone", model=MODEL, state="hello",
        questions={"old": {"type": "noul", "instructions": "Is it old?"}}), (LLAMA, TRANSFORMERS)),
    Situation("the list of models", [GET("/v1/models")], merged=True),
    one("health", GET("/health")),
    one("a path without /v1", post("/chat/completions", model=MODEL, max_tokens=4, temperature=0,
        messages=[{"role": "user", "content": "hello"}]), (LLAMA, LITELLM)),
    one("HEAD", Ask("HEAD", "/health")),
    one("an image for a model of text", chat([
        {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PIXEL}}])),
    one("a field of the wrong type", chat(temperature="hot")),
    one("a negative limit", chat(max_tokens=-5)),
    one("a role that is none", chat(messages=[{"role": "nobody", "content": "hello"}])),
    one("another model", chat(model="nobody's")),
    one("a prompt longer than the context", chat("hello " * 9000)),
    one("a path that is not there", GET("/v1/nothing")),
    one("a body sent in chunks", changed(chat(), chunked=True)),
    one("`expect: 100-continue`", changed(chat(), headers={"expect": "100-continue"})),
    one("no content type", changed(chat(), headers={"content-type": ""})),
    one("a body of text", changed(chat(), headers={"content-type": "text/plain"})),
    one("a query", changed(chat(), path=CHAT + "?a=b&c=%20d")),
    one("`accept-encoding: gzip`", changed(chat(), headers={"accept-encoding": "gzip, br"})),
    Situation("three chats over one connection", [chat(), chat(max_tokens=3), chat()]),
    one("llama.cpp: `timings` of a stream", chat(stream=True, max_tokens=3), (LLAMA,)),
    one("llama.cpp: `timings_per_token`", chat(stream=True, timings_per_token=True), (LLAMA,)),
    one("llama.cpp: `return_progress`",
        chat(stream=True, return_progress=True, timings_per_token=True), (LLAMA,)),
    one("llama.cpp: `cache_prompt`", chat(cache_prompt=False, id_slot=0), (LLAMA,)),
    one("llama.cpp: a grammar", chat(grammar='root ::= "yes" | "no"'), (LLAMA,)),
    one("llama.cpp: `n_probs`", post("/v1/completions", model=MODEL, prompt="hello", n_probs=3,
                                     max_tokens=3, temperature=0), (LLAMA,)),
    one("llama.cpp: `/tokenize`", post("/tokenize", content="hello you"), (LLAMA,)),
    one("llama.cpp: `/detokenize`", post("/detokenize", tokens=[260, 261]), (LLAMA,)),
    one("llama.cpp: `/apply-template`",
        post("/apply-template", messages=[{"role": "user", "content": "hello"}]), (LLAMA,)),
    one("llama.cpp: `/v1/chat/completions/input_tokens`",
        changed(chat(), path=CHAT + "/input_tokens"), (LLAMA,)),
    one("llama.cpp: `/props`", GET("/props"), (LLAMA,)),
    one("llama.cpp: a rerank that is not enabled",
        post("/v1/rerank", model=MODEL, query="a", documents=["b", "c"]), (LLAMA,)),
    one("messages that are none", chat(messages="hello"), own=400),
    one("a limit that is there twice", raw(ODD.replace(b"{", b'{"max_tokens":3,', 1)), own=400),
    one("`usage: {include: true}`: the usage is sent, whatever the server knows of it",
        chat(stream=True, usage={"include": True}), (LLAMA, LITELLM), own=200),
    one("a method that is not allowed", Ask("PUT", CHAT, b"{}"), own=404),
    one("an empty body", raw(b""), own=400),
    one("a body that is no JSON", raw(b'{"model": '), own=400),
    one("no messages", post(CHAT, model=MODEL), own=400),
    one("OPTIONS", Ask("OPTIONS", CHAT), own=204),
    one("llama.cpp: `/completion`, which no route names",
        post("/completion", prompt="hello", n_predict=4), (LLAMA,), own=404),
    one("llama.cpp: `/slots` is the operator's", GET("/slots"), (LLAMA,), own=403),
    one("llama.cpp: `POST /slots` is the operator's",
        post("/slots/0?action=erase"), (LLAMA,), own=403),
]  # fmt: skip
