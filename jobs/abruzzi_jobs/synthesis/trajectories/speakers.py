"""How a model is asked for the agent's next message: by the protocol's tools, or, where its server knows none, by a prompt that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse, ToolCall
from abruzzi_jobs.synthesis.trajectories.toolbox import Toolbox

Message = dict[str, Any]


class Agent(Protocol):
    """Whoever plays the agent of one conversation."""

    async def reply(self, messages: Sequence[Message], toolbox: Toolbox) -> ChatResponse:
        """Raises a ChatFailure where no answer is to be had."""
        ...


class NativeAgent:
    """Asks with `tools`, as OpenAI's protocol has it."""

    def __init__(self, backend: ChatBackend) -> None:
        self._backend = backend

    async def reply(self, messages: Sequence[Message], toolbox: Toolbox) -> ChatResponse:
        return await self._backend.complete(ChatRequest(messages=messages, tools=toolbox.functions))


_HOW = """

Tools:
{tools}
You answer with one JSON object: {{"call": NAME, "with": {{…}}}} to use a tool, or {{"say": TEXT}} to speak to the user."""
_RESULT = "Result of {tool}: {answer}"


class PromptedAgent:
    """The tools are described in the system prompt, and the server holds the answer to a JSON Schema: a call of a tool that there is, with arguments
    as its schema wants them, or words. A message of the user's is answered by a call first, since small models would rather guess than look."""

    def __init__(self, backend: ChatBackend) -> None:
        self._backend = backend

    async def reply(self, messages: Sequence[Message], toolbox: Toolbox) -> ChatResponse:
        schema = answer_schema(toolbox, may_speak=messages[-1]["role"] != "user")
        shape = {"type": "json_schema", "json_schema": {"name": "message", "schema": schema}}
        asked = ChatRequest(messages=in_words(messages, toolbox), response_format=shape)
        return read_prompted(await self._backend.complete(asked))


def answer_schema(toolbox: Toolbox, *, may_speak: bool) -> dict[str, Any]:
    shapes: list[dict[str, Any]] = [
        _object({"call": {"const": name}, "with": tool.input_schema}) for name, tool in toolbox.tools.items()
    ]
    if may_speak:
        shapes.append(_object({"say": {"type": "string", "minLength": 1, "maxLength": 300}}))
    return {"anyOf": shapes}


def in_words(messages: Sequence[Message], toolbox: Toolbox) -> list[Message]:
    """The conversation without the protocol's tools."""
    told: list[Message] = []
    names: dict[str, str] = {}
    for message in messages:
        if message["role"] == "system":
            told.append({**message, "content": message["content"] + _HOW.format(tools=_listed(toolbox))})
        elif message["role"] == "tool":
            text = _RESULT.format(tool=names.get(message["tool_call_id"], "the tool"), answer=message["content"])
            if told[-1].get("content", "").startswith("Result of ") and told[-1]["role"] == "user":
                told[-1] = {"role": "user", "content": f"{told[-1]['content']}\n{text}"}
            else:
                told.append({"role": "user", "content": text})
        elif message.get("tool_calls"):
            functions = {call["id"]: call["function"] for call in message["tool_calls"]}
            names |= {number: function["name"] for number, function in functions.items()}
            said = "\n".join(
                f'{{"call": {json.dumps(f["name"])}, "with": {f["arguments"]}}}' for f in functions.values()
            )
            told.append({"role": "assistant", "content": said})
        elif message["role"] == "assistant":
            said = json.dumps({"say": message["content"]}, ensure_ascii=False)
            told.append({"role": "assistant", "content": said})
        else:
            told.append(message)
    return told


def read_prompted(response: ChatResponse) -> ChatResponse:
    """As if the server had known tools. What is no such object is taken as it stands, as words."""
    try:
        found = json.loads(response.text)
    except ValueError:
        return response
    if not isinstance(found, dict):
        return response
    if isinstance(found.get("say"), str):
        return replace(response, text=found["say"])
    if isinstance(found.get("call"), str):
        arguments = json.dumps(found.get("with", {}), ensure_ascii=False)
        return replace(response, text="", tool_calls=(ToolCall("", found["call"], arguments),))
    return response


def _listed(toolbox: Toolbox) -> str:
    return "\n".join(
        f"{name}({_parameters(tool.input_schema)}): {' '.join(tool.description.split())[:160]}"
        for name, tool in toolbox.tools.items()
    )


def _parameters(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {part.get('type', 'any') if isinstance(part, dict) else 'any'}"
        for name, part in schema.get("properties", {}).items()
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def agent_of(backend: ChatBackend, tool_calls: Literal["native", "prompted"]) -> Agent:
    return NativeAgent(backend) if tool_calls == "native" else PromptedAgent(backend)
