"""`llama-index` (llama-index-llms-openai)."""

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
    leave,
    raised,
    refused,
    report,
    same,
    text_of,
    within,
)
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from openai import APIStatusError, BadRequestError
from pydantic import BaseModel


class Place(BaseModel):
    """A place."""

    city: str
    degrees: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    same(city, "Rome")
    return "sunny"


def made(key):
    return OpenAI(model=OPENAI_MODEL, api_base=f"{BASE}/v1", api_key=key)


llm = made(KEY)


def user(*blocks):
    return ChatMessage(role="user", blocks=list(blocks))


def said(text):
    return [user(TextBlock(text=text))]


def tools():
    able = [FunctionTool.from_defaults(get_weather)]
    reply = llm.chat_with_tools(able, chat_history=said(WEATHER))
    call = llm.get_tool_calls_from_response(reply)[0]
    result = ChatMessage(role="tool", content=get_weather(**call.tool_kwargs),
                         additional_kwargs={"tool_call_id": call.tool_id})  # fmt: skip
    history = [*said(WEATHER), reply.message, result]
    same(llm.chat_with_tools(able, chat_history=history).message.content, SUNNY)


def images():
    blocks = TextBlock(text=LOOK), ImageBlock(image=PNG, image_mimetype="image/png")
    same(llm.chat([user(*blocks)]).message.content, CAT)


def errors():
    wrong = raised(lambda: llm.chat(said(FAIL)))
    assert isinstance(wrong, BadRequestError), type(wrong)
    within(NO, wrong)


def budget():
    wrong = refused(lambda: made(BROKE_KEY).chat(said(HELLO)))
    assert isinstance(wrong, APIStatusError), type(wrong)
    same(wrong.status_code, 402)


report({
    "chat": lambda: same(llm.chat(said(HELLO)).message.content, TEXT),
    "stream": lambda: same(text_of(one.delta for one in llm.stream_chat(said(HELLO))), TEXT),
    "tools": tools, "images": images,
    "structured output": lambda: same(
        llm.as_structured_llm(Place).chat(said(WHERE)).raw.model_dump(), ROME),
    "errors": errors,
    "abort": lambda: aborted(lambda: leave(llm.stream_chat(said(SLOWLY)))),
    "spent budget": budget,
})  # fmt: skip
