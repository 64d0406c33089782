"""A fine-tuned checkpoint answers with its chat template: turns and tools in, text and parsed calls out."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuning_lab import WEATHER, chat, make_inputs

from abruzzi.contracts.endpoint import ChatRole, CheckpointEndpoint, RoleConfig
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.rl.engine.protocol import Drawn, Request
from abruzzi_jobs.serve.asked import Asked, BadRequest, read_asked
from abruzzi_jobs.serve.engine import Engine
from abruzzi_jobs.sft.markers import marker_sets, write_chat_tokenizer

QUESTION = {"role": "user", "content": "Weather in Lukla?"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of fresh weights; its model has room for the markers."""
    made = make_inputs(tmp_path_factory.mktemp("chats"), room=16)
    (made / "chat").mkdir()
    write_chat_tokenizer(made / "tokenizer", made / "chat", marker_sets()["shipped"])
    return {"own.checkpoint": made / "checkpoint", "own.tokenizer": made / "chat", "plain": made / "tokenizer"}


class Scripted(Engine):
    """Draws the tokens of a text in which markers are spelled, one after the other."""

    script = ""

    def _draws(self, request: Request) -> Iterator[Drawn]:
        self.tokenizer.encode_special_tokens = False
        ids = self.tokenizer.encode(self.script, add_special_tokens=False).ids
        self.tokenizer.encode_special_tokens = True
        for token in ids:
            yield Drawn(request.id, token, 0.0)


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path]) -> Scripted:
    return Scripted.load(folders["own.checkpoint"], folders["own.tokenizer"], thread_count=1)  # type: ignore[return-value]


def asked(**more: Any) -> Asked:
    return read_asked({"messages": [QUESTION], "tools": [WEATHER], **more}, has_template=True)


def test_the_prompt_is_the_template_s(engine: Scripted) -> None:
    assert engine.template is not None
    shown = engine.template.shown(engine._prompt(asked()))
    assert shown.startswith("<|endoftext|><|im_system|>tool_declare<|im_middle|>namespace functions {")
    assert shown.endswith("Weather in Lukla?<|im_end|><|im_assistant|>assistant<|im_middle|>")
    without = engine.template.shown(engine._prompt(asked(tool_choice="none")))
    assert "tool_declare" not in without


def test_tools_are_declared_as_the_model_was_tuned_to_read_them(folders: dict[str, Path], tmp_path: Path) -> None:
    write_chat_tokenizer(folders["plain"], tmp_path, marker_sets()["shipped"], "json")
    engine = Engine.load(folders["own.checkpoint"], tmp_path, thread_count=1)
    assert engine.template is not None
    shown = engine.template.shown(engine._prompt(asked()))
    assert shown.startswith('<|endoftext|><|im_system|>tool_declare<|im_middle|>[{"')
    assert '"name":"get_weather"' in shown


def test_calls_come_back_parsed(engine: Scripted) -> None:
    engine.script = (
        "Looking.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"town": "Lukla"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>'
    )
    answer = engine.answer(asked())
    assert (answer.text, answer.finish_reason) == ("Looking.", "tool_calls")
    assert answer.tool_calls == [
        {"id": "functions.get_weather:0", "type": "function", "function": {"name": "get_weather", "arguments": '{"town":"Lukla"}'}}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "text", "reason"),
    [
        ("It snows.<|im_end|>", "It snows.", "stop"),
        ("<|tool_calls_section_begin|>no<|im_end|>", "<|tool_calls_section_begin|>no", "stop"),
        ("It snows and", "It snows and", "length"),
    ],
)
def test_text_and_what_is_malformed_come_back_as_text(engine: Scripted, script: str, text: str, reason: str) -> None:
    engine.script = script
    answer = engine.answer(asked())
    assert (answer.text, answer.finish_reason, answer.tool_calls) == (text, reason, [])


def test_a_conversation_that_is_none_is_a_bad_request_and_a_plain_checkpoint_takes_no_tools(
    folders: dict[str, Path],
) -> None:
    with pytest.raises(BadRequest, match="message 0 has the role 'bot'"):
        asked(messages=[{"role": "bot", "content": "x"}])
    with pytest.raises(BadRequest, match=r"there is no tool 'get_wether'"):
        asked(tool_choice={"type": "function", "function": {"name": "get_wether"}})
    with pytest.raises(BadRequest, match="not beside tools"):
        asked(response_format={"type": "json_object"})
    with pytest.raises(BadRequest, match="was not fine-tuned on chats"):
        read_asked({"messages": [QUESTION], "tools": [WEATHER]})
    plain = Engine.load(folders["own.checkpoint"], folders["plain"], thread_count=1)
    assert plain.template is None
    unknown = read_asked({"messages": [QUESTION], "conversation": {"messages": []}, "max_tokens": 2})
    assert unknown.conversation is None
    assert plain.answer(unknown).tool_calls == []


def test_over_http_a_whole_dialogue_with_calls_and_results_is_a_prompt(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("own.checkpoint", "own.tokenizer")}
    for name, place in places.items():
        shutil.copytree(folders[name], place)
    endpoint = CheckpointEndpoint(kind="checkpoint", checkpoint="sft.checkpoint", tokenizer="sft.tokenizer", threads=1)

    async def ask() -> Any:
        async with open_roles(
            {ChatRole.AGENT: RoleConfig(endpoint="own", temperature=0.0)}, {"own": endpoint}, folders=places, seed=1
        ) as roles:
            row = chat(1)
            return await roles["agent"].complete(
                ChatRequest(messages=row["messages"], tools=row["tools"], max_tokens=4)
            )

    response = asyncio.run(ask())
    assert response.is_llm
    assert response.usage.completion_tokens <= 4
    assert response.usage.prompt_tokens > 60


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_model_that_knows_nothing_calls_the_tool_that_it_must_call(folders: dict[str, Path], choice: Any) -> None:
    engine = Engine.load(folders["own.checkpoint"], folders["own.tokenizer"], thread_count=1)
    tools = [
        {
            **WEATHER,
            "parameters": {
                "properties": {"town": {"enum": ["Lukla", "Skardu"]}},
                "required": ["town"],
                "additionalProperties": False,
            },
        }
    ]
    other = {
        "name": "other",
        "parameters": {"properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"]},
    }
    answer = engine.answer(
        asked(
            tools=[*tools, *([other] if isinstance(choice, dict) else [])],
            tool_choice=choice,
            parallel_tool_calls=False,
            seed=3,
            max_tokens=200,
        )
    )
    assert answer.finish_reason == "tool_calls"
    [call] = answer.tool_calls
    assert call["id"] == "functions.get_weather:0"
    assert call["function"]["arguments"] in ('{"town":"Lukla"}', '{"town":"Skardu"}')


def test_an_answer_follows_a_schema_and_a_schema_that_makes_no_grammar_is_a_bad_request(
    folders: dict[str, Path],
) -> None:
    engine = Engine.load(folders["own.checkpoint"], folders["own.tokenizer"], thread_count=1)

    def shape(schema: dict[str, Any]) -> Asked:
        given = {"type": "json_schema", "json_schema": {"name": "shape", "schema": schema}}
        return asked(tools=[], response_format=given, seed=1, max_tokens=200)

    answer = engine.answer(shape({"type": "array", "items": {"enum": [1, "two"]}, "minItems": 2, "maxItems": 2}))
    assert answer.text in ("[1,1]", '[1,"two"]', '["two",1]', '["two","two"]')
    assert answer.finish_reason == "stop"
    with pytest.raises(BadRequest, match="response_format: its JSON Schema makes no grammar"):
        engine.prepare(shape({"type": "string", "format": "no-such-format"}))
