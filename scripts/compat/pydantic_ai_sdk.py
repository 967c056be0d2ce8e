"""`pydantic-ai`, over chat completions."""

import asyncio

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
    PNG,
    ROME,
    SLOWLY,
    SUNNY,
    TEXT,
    WEATHER,
    WHERE,
    aborted,
    raised,
    refused,
    report,
    same,
    text_of,
    within,
)
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Place(BaseModel):
    city: str
    degrees: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    same(city, "Rome")
    return "sunny"


def agent(key=KEY, **more):
    provider = OpenAIProvider(base_url=f"{BASE}/v1", api_key=key)
    return Agent(OpenAIChatModel(OPENAI_MODEL, provider=provider), **more)


def ask(said, key=KEY, **more):
    return agent(key, **more).run_sync(said).output


async def _streamed():
    async with agent().run_stream(HELLO) as run:
        same(text_of([one async for one in run.stream_text(delta=True)]), TEXT)


async def _left():
    async with agent().run_stream(SLOWLY) as run:
        async for _one in run.stream_text(delta=True, debounce_by=None):
            break
    await asyncio.sleep(0.2)


def errors():
    wrong = raised(lambda: ask(FAIL))
    assert isinstance(wrong, ModelHTTPError), type(wrong)
    same(wrong.status_code, 400)
    within(NO, wrong)


def budget():
    wrong = refused(lambda: ask(HELLO, BROKE_KEY))
    same(wrong.status_code, 402)


report({
    "chat": lambda: same(ask(HELLO), TEXT), "stream": lambda: asyncio.run(_streamed()),
    "tools": lambda: same(ask(WEATHER, tools=[get_weather]), SUNNY),
    "images": lambda: same(ask([LOOK, BinaryContent(PNG, media_type="image/png")]), CAT),
    "structured output": lambda: same(ask(WHERE, output_type=Place).model_dump(), ROME),
    "errors": errors, "abort": lambda: aborted(lambda: asyncio.run(_left())),
    "spent budget": budget,
})  # fmt: skip
