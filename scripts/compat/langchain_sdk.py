"""`langchain-openai` and `langchain-anthropic`, whichever is installed."""

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
    OPENAI_MODEL,
    PNG_URL,
    ROME,
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
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

try:
    from langchain_openai import ChatOpenAI
    from openai import APIStatusError, BadRequestError

    def made(key):
        return ChatOpenAI(base_url=f"{BASE}/v1", api_key=key, model=OPENAI_MODEL)
except ImportError:
    from anthropic import APIStatusError, BadRequestError
    from langchain_anthropic import ChatAnthropic

    def made(key):
        return ChatAnthropic(base_url=BASE, api_key=key, model=CLAUDE, max_tokens=50)


model = made(KEY)


class Place(BaseModel):
    """A place."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    same(city, "Rome")
    return "sunny"


def tools():
    able = model.bind_tools([get_weather])
    said = [HumanMessage(WEATHER)]
    reply = able.invoke(said)
    call = reply.tool_calls[0]
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    same(able.invoke([*said, reply, result]).text, SUNNY)


def images():
    image = {"type": "image_url", "image_url": {"url": PNG_URL}}
    same(model.invoke([HumanMessage([{"type": "text", "text": LOOK}, image])]).text, CAT)


def structured():
    same(model.with_structured_output(Place).invoke(WHERE).model_dump(), ROME)


def errors():
    wrong = raised(lambda: model.invoke(FAIL))
    assert isinstance(wrong, BadRequestError), type(wrong)
    within(NO, wrong)


def budget():
    wrong = refused(lambda: made(BROKE_KEY).invoke(HELLO))
    assert isinstance(wrong, APIStatusError), type(wrong)
    same(wrong.status_code, 402)


report({
    "chat": lambda: same(model.invoke(HELLO).text, TEXT),
    "stream": lambda: same(text_of(one.text for one in model.stream(HELLO)), TEXT),
    "tools": tools, "images": images, "structured output": structured, "errors": errors,
    "abort": lambda: aborted(lambda: leave(model.stream(SLOWLY))), "spent budget": budget,
})  # fmt: skip
