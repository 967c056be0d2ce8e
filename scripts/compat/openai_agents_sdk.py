"""`openai-agents`, over the Responses API."""

import asyncio

import openai
from agents import (
    Agent,
    ModelSettings,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
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
    within,
)
from pydantic import BaseModel

set_tracing_disabled(True)


def use(key):
    """Set a new client: it belongs to one event loop."""
    set_default_openai_client(openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key=key))


class Place(BaseModel):
    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    same(city, "Rome")
    return "sunny"


def agent(**more):
    return Agent(name="a", model=OPENAI_MODEL, model_settings=ModelSettings(), **more)


def ask(said, key=KEY, **more):
    use(key)
    return Runner.run_sync(agent(**more), said).final_output


async def _streamed():
    use(KEY)
    out = ""
    async for one in Runner.run_streamed(agent(), HELLO).stream_events():
        if one.type == "raw_response_event" and one.data.type == "response.output_text.delta":
            out += one.data.delta
    same(out, TEXT)


async def _left():
    use(KEY)
    run = Runner.run_streamed(agent(), SLOWLY)
    n = 0
    async for one in run.stream_events():
        n += one.type == "raw_response_event"
        if n == 3:
            run.cancel()
            break
    await asyncio.sleep(0.5)


def images():
    parts = [{"type": "input_text", "text": LOOK}, {"type": "input_image", "image_url": PNG_URL}]
    same(ask([{"role": "user", "content": parts}]), CAT)


def errors():
    wrong = raised(lambda: ask(FAIL))
    assert isinstance(wrong, openai.BadRequestError), type(wrong)
    within(NO, wrong)


def budget():
    wrong = refused(lambda: ask(HELLO, BROKE_KEY))
    same(wrong.status_code, 402)


report({
    "chat": lambda: same(ask(HELLO), TEXT), "stream": lambda: asyncio.run(_streamed()),
    "tools": lambda: same(ask(WEATHER, tools=[get_weather]), SUNNY), "images": images,
    "structured output": lambda: same(ask(WHERE, output_type=Place).model_dump(), ROME),
    "errors": errors, "abort": lambda: aborted(lambda: asyncio.run(_left())),
    "spent budget": budget,
})  # fmt: skip
