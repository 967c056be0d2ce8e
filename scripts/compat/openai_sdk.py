"""`openai`: chat completions."""

import json

import openai
from driver import (
    BASE,
    BROKE_KEY,
    CAT,
    FAIL,
    HELLO,
    KEY,
    LOOK,
    NO,
    OPENAI_MODEL,
    PNG_URL,
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
    text_of,
    within,
)

client = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY)
broke = openai.OpenAI(base_url=f"{BASE}/v1", api_key=BROKE_KEY)
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}  # fmt: skip


def ask(content, of=client, **more):
    return of.chat.completions.create(
        model=OPENAI_MODEL, messages=[{"role": "user", "content": content}], **more
    )


def streamed():
    parts = ask(HELLO, stream=True)
    same(text_of(one.choices[0].delta.content for one in parts if one.choices), TEXT)


def tools():
    message = ask(WEATHER, tools=[TOOL]).choices[0].message
    call = message.tool_calls[0]
    same(json.loads(call.function.arguments), {"city": "Rome"})
    said = [{"role": "user", "content": WEATHER}, message.to_dict(),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]  # fmt: skip
    reply = client.chat.completions.create(model=OPENAI_MODEL, messages=said, tools=[TOOL])
    same(reply.choices[0].message.content, SUNNY)


def images():
    parts = [{"type": "text", "text": LOOK}, {"type": "image_url", "image_url": {"url": PNG_URL}}]
    same(ask(parts).choices[0].message.content, CAT)


def structured():
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    same(json.loads(ask(WHERE, response_format=form).choices[0].message.content), ROME)


def errors():
    wrong = raised(lambda: ask(FAIL))
    assert isinstance(wrong, openai.BadRequestError), type(wrong)
    within(NO, wrong)


def abort():
    stream = ask(SLOWLY, stream=True)
    aborted(lambda: leave(iter(stream), stream.close))


def budget():
    wrong = refused(lambda: ask(HELLO, of=broke))
    same(wrong.status_code, 402)


report({
    "chat": lambda: same(ask(HELLO).choices[0].message.content, TEXT), "stream": streamed,
    "tools": tools, "images": images, "structured output": structured, "errors": errors,
    "abort": abort, "spent budget": budget,
})  # fmt: skip
