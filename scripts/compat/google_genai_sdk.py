"""`google-genai`: generateContent."""

import json

from driver import (
    BASE,
    BROKE_KEY,
    CAT,
    FAIL,
    GEMINI,
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
    text_of,
    within,
)
from google import genai
from google.genai import errors as google_errors
from google.genai import types

client = genai.Client(api_key=KEY, http_options={"base_url": BASE})
broke = genai.Client(api_key=BROKE_KEY, http_options={"base_url": BASE})


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    same(city, "Rome")
    return "sunny"


def ask(contents, of=client, **config):
    return of.models.generate_content(
        model=GEMINI, contents=contents, config=types.GenerateContentConfig(**config)
    )


def parts_of(contents):
    return client.models.generate_content_stream(model=GEMINI, contents=contents)


def images():
    same(ask([types.Part.from_bytes(data=PNG, mime_type="image/png"), LOOK]).text, CAT)


def structured():
    form = {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
    same(json.loads(ask(WHERE, **form).text), ROME)


def errors():
    wrong = raised(lambda: ask(FAIL))
    assert isinstance(wrong, google_errors.ClientError), type(wrong)
    within(NO, wrong)


def budget():
    wrong = refused(lambda: ask(HELLO, of=broke))
    same(wrong.code, 402)


report({
    "chat": lambda: same(ask(HELLO).text, TEXT),
    "stream": lambda: same(text_of(one.text for one in parts_of(HELLO)), TEXT),
    "tools": lambda: same(ask(WEATHER, tools=[get_weather]).text, SUNNY),
    "images": images, "structured output": structured, "errors": errors,
    "abort": lambda: aborted(lambda: leave(parts_of(SLOWLY))), "spent budget": budget,
})  # fmt: skip
