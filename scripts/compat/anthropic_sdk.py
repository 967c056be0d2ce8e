"""`anthropic`: messages."""

import base64
import json

import anthropic
from driver import (
    BASE,
    BROKE_KEY,
    CAT,
    CLAUDE,
    FAIL,
    HELLO,
    KEY,
    LOOK,
    NO,
    PNG,
    ROME,
    SCHEMA,
    SLOWLY,
    SUNNY,
    TEXT,
    WEATHER,
    WHERE,
    aborted,
    leave,
    raised,
    refused,
    report,
    same,
    within,
)

client = anthropic.Anthropic(base_url=BASE, api_key=KEY)
broke = anthropic.Anthropic(base_url=BASE, api_key=BROKE_KEY)
TOOL = {"name": "get_weather", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}}}  # fmt: skip


def asked(*said, **more):
    return {"model": CLAUDE, "max_tokens": 50, "messages": list(said), **more}


def user(content):
    return {"role": "user", "content": content}


def ask(content, of=client, **more):
    return of.messages.create(**asked(user(content), **more))


def streamed():
    with client.messages.stream(**asked(user(HELLO))) as stream:
        same("".join(stream.text_stream), TEXT)


def tools():
    reply = ask(WEATHER, tools=[TOOL])
    call = reply.content[0]
    same(call.input, {"city": "Rome"})
    result = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]
    said = [user(WEATHER), {"role": "assistant", "content": reply.content}, user(result)]
    same(client.messages.create(**asked(*said, tools=[TOOL])).content[0].text, SUNNY)


def images():
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": LOOK}]
    same(ask(parts).content[0].text, CAT)


def structured():
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    same(json.loads(ask(WHERE, output_config=form).content[0].text), ROME)


def errors():
    wrong = raised(lambda: ask(FAIL))
    assert isinstance(wrong, anthropic.BadRequestError), type(wrong)
    within(NO, wrong)


def abort():
    stream = ask(SLOWLY, stream=True)
    aborted(lambda: leave(iter(stream), stream.close))


def budget():
    wrong = refused(lambda: ask(HELLO, of=broke))
    same(wrong.status_code, 402)


report({
    "chat": lambda: same(ask(HELLO).content[0].text, TEXT), "stream": streamed, "tools": tools,
    "images": images, "structured output": structured, "errors": errors, "abort": abort,
    "spent budget": budget,
})  # fmt: skip
