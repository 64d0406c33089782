"""The chat template: what goes in comes out, whatever the texts spell; what does not follow it is told by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuning_lab import WEATHER, chat

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.tokenizer import load_tokenizer
from abruzzi_jobs.sft.conversation import (
    Conversation,
    Malformed,
    compact,
    read_conversation,
    read_observation,
    read_tools,
)
from abruzzi_jobs.sft.declarations import declared
from abruzzi_jobs.sft.markers import marker_sets, read_markers, with_markers, write_chat_tokenizer
from abruzzi_jobs.sft.template import ChatTemplate, MalformedTurn

SHIPPED = marker_sets()["shipped"]
SPELLED = (*SHIPPED.names(), "<|endoftext|>", "<|pad|>", "## Return of functions.f:0\n", "assistant")
texts = st.lists(st.one_of(st.sampled_from(SPELLED), st.text(max_size=8)), max_size=4).map("".join)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
arguments = st.dictionaries(texts, values, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> dict[str, Any]:
    """Turns of all roles; parallel calls, results in any order, arguments as a table or as its text, ids of any server."""
    messages: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        roles = ["system", "user", "assistant", *(["tool"] if open_calls else [])]
        message: dict[str, Any] = {"role": draw(st.sampled_from(roles)), "content": draw(texts)}
        if message["role"] == "tool":
            message["tool_call_id"] = open_calls.pop(draw(st.integers(0, len(open_calls) - 1)))
        if message["role"] == "assistant":
            calls = draw(st.lists(st.tuples(names, arguments, st.booleans()), max_size=2))
            message["tool_calls"] = []
            for name, given_arguments, is_text in calls:
                open_calls.append(f"call_{len(messages)}_{len(open_calls)}_{name}")
                written = compact(given_arguments) if is_text else given_arguments
                function = {"name": name, "arguments": written}
                message["tool_calls"].append({"id": open_calls[-1], "type": "function", "function": function})
        messages.append(message)
    return {"messages": messages}


@pytest.fixture(scope="module")
def template(tuning_inputs: Path) -> ChatTemplate:
    return ChatTemplate(with_markers(load_tokenizer(tuning_inputs / "tokenizer"), SHIPPED), SHIPPED)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(row=conversations())
def test_what_is_rendered_reads_back_equal_also_where_texts_spell_markers(
    template: ChatTemplate, row: dict[str, Any]
) -> None:
    conversation = read_conversation(row)
    encoded = template.encode(conversation)
    declaration, messages = template.read(encoded.tokens.tolist())
    assert (declaration, messages) == ("", list(conversation.messages))
    structure = template.pieces(conversation)
    markers = sum(piece.marker is not None for piece in structure)
    special = {template.tokenizer.token_to_id(name) for name in SHIPPED.names()}
    assert sum(token in special for token in encoded.tokens.tolist()) == markers, "texts make no marker"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(row=conversations())
def test_learned_tokens_are_exactly_the_assistants_words_calls_and_ends(
    template: ChatTemplate, row: dict[str, Any]
) -> None:
    conversation = read_conversation(row)
    encoded = template.encode(conversation)
    said = ""
    for message in conversation.messages:
        if message["role"] != "assistant":
            continue
        said += message["content"]
        calls = message.get("tool_calls", ())
        if calls:
            said += SHIPPED.section_begin
            for call in calls:
                said += f"{SHIPPED.call_begin}{call['id']}{SHIPPED.argument_begin}"
                said += f"{call['function']['arguments']}{SHIPPED.call_end}"
            said += SHIPPED.section_end
        said += SHIPPED.end
    assert template.shown(encoded.tokens[encoded.is_learned].tolist()) == said
    rest = template.shown(encoded.tokens[~encoded.is_learned].tolist())
    assert len(rest) + len(said) == len(template.shown(encoded.tokens.tolist()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=st.lists(st.one_of(st.integers(0, 320), st.integers(299, 309)), max_size=30))
def test_any_tokens_are_a_turn_or_an_error_with_a_name(template: ChatTemplate, tokens: list[int]) -> None:
    size = template.tokenizer.get_vocab_size()
    found = ""
    try:
        found = template.read_turn([token % size for token in tokens])["role"]
    except MalformedTurn as error:
        found = error.reason
    assert found in ("assistant", "not_ended", "misplaced_marker", "no_call", "bad_call_id", "bad_arguments")


def test_the_form_is_that_of_the_published_model(template: ChatTemplate) -> None:
    conversation = read_conversation(chat(3))
    assert template.text(template.pieces(conversation)) == (
        "<|im_system|>tool_declare<|im_middle|>namespace functions {\n// The weather of a town.\n"
        "type get_weather = (_: {\ntown: string,\n}) => any;\n}<|im_end|>"
        "<|im_user|>user<|im_middle|>Weather in Lukla 3?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"town":"Lukla 3"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>'
        "<|im_system|>tool<|im_middle|>## Return of functions.get_weather:0\nsnow, 3 cm<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>It snows in Lukla 3.<|im_end|>"
    )
    prompt = template.prompt(Conversation(conversation.messages[:1]))
    assert template.shown(prompt).endswith("Lukla 3?<|im_end|><|im_assistant|>assistant<|im_middle|>")


def test_the_counter_of_calls_runs_over_the_whole_conversation() -> None:
    two = chat(1)["messages"] + chat(2)["messages"]
    messages = read_conversation({"messages": two}).messages
    assert [m["tool_calls"][0]["id"] for m in messages if "tool_calls" in m] == [
        "functions.get_weather:0",
        "functions.get_weather:1",
    ]
    assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == [
        "functions.get_weather:0",
        "functions.get_weather:1",
    ]


def test_the_report_s_names_are_data_too(template: ChatTemplate) -> None:
    report = marker_sets()["report"]
    other = ChatTemplate(with_markers(template.tokenizer, report), report)
    conversation = read_conversation(chat(0))
    encoded = other.encode(conversation)
    assert "<|tool_call_section_begin|>" in other.shown(encoded.tokens.tolist())
    assert other.read(encoded.tokens.tolist())[1] == list(conversation.messages)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("Hello", "not_ended"),
        ("<|tool_calls_section_begin|><|tool_calls_section_end|><|im_end|>", "no_call"),
        ("<|tool_call_begin|>functions.f:0<|im_end|>", "misplaced_marker"),
        ("<|tool_calls_section_begin|><|tool_call_begin|>get_weather<|tool_call_argument_begin|>{}<|tool_call_end|>", "bad_call_id"),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:1<|tool_call_argument_begin|>{}<|tool_call_end|>", "bad_call_id"),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\":<|tool_call_end|>", "bad_arguments"),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|><|tool_call_end|>", "bad_arguments"),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}", "not_ended"),
    ],
)  # fmt: skip
def test_what_a_model_wrote_wrong_is_named(template: ChatTemplate, written: str, reason: str) -> None:
    tokens = tokens_of(template, written)
    with pytest.raises(MalformedTurn) as caught:
        template.read_turn(tokens, calls_before=0)
    assert caught.value.reason == reason


def tokens_of(template: ChatTemplate, text: str) -> list[int]:
    """With markers where the text spells them, as only a test writes it."""
    template.tokenizer.encode_special_tokens = False
    try:
        return template.tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        template.tokenizer.encode_special_tokens = True


MALFORMED: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "no_messages"),
    "an empty list": ({"messages": []}, "no_messages"),
    "a role of nobody": ({"messages": [{"role": "bot", "content": "x"}]}, "unknown_role"),
    "a result of no call": ({"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]}, "unknown_call"),
    "a picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported_content"),
    "half a character": ({"messages": [{"role": "user", "content": "\ud800"}]}, "not_unicode"),
    "a user who calls": (
        {"messages": [{"role": "user", "content": "", "tool_calls": [{"function": {"name": "f"}}]}]},
        "bad_call",
    ),
    "arguments that break off": (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a'}}]}]},
        "bad_arguments",
    ),
    "half a character in an argument": (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":"\\ud800"}'}}]}]},
        "bad_arguments",
    ),
    "a result of a list": ({"messages": [{"role": "tool", "tool_call_id": ["a"], "content": "x"}]}, "unknown_call"),
    "calls that are no list": ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "bad_call"),
    "a tool whose name is a number": ({"messages": [{"role": "user", "content": "x"}], "tools": [{"name": 5}]}, "bad_tools"),
    "a tool without a name": ({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "bad_tools"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), MALFORMED.values(), ids=list(MALFORMED))
def test_a_conversation_that_is_none_is_refused_by_name(row: Any, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_conversation(row)
    assert caught.value.reason == reason
    assert caught.value.hint


def test_declarations_say_in_typescript_what_the_schema_says() -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"type": "integer", "minimum": 1, "description": "how many\nof them"},
            "kind": {"enum": ["a", "b"]},
            "tags": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "who-ever": {"$ref": "#/$defs/person"},
            "more": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
        "required": ["size"],
        "$defs": {"person": {"type": "object", "properties": {"self": {"$ref": "#/$defs/person"}}}},
    }
    text = declared(read_tools([{"name": "make", "description": "Makes.", "parameters": schema}]), "typescript")
    assert "// how many\n// of them (integer, minimum: 1)\nsize: number," in text
    assert 'kind?: "a" | "b",' in text
    assert "tags?: (string | null)[]," in text
    assert '"who-ever"?: {\nself?: {' in text
    assert "more?: {[key: string]: boolean}," in text
    assert declared([WEATHER], "json") == compact([{"type": "function", "function": WEATHER}])


def test_a_type_within_itself_is_written_out_twice_and_what_is_no_schema_is_any() -> None:
    person = {"type": "object", "properties": {f"child{n}": {"$ref": "#/$defs/person"} for n in range(3)}}
    schema = {
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/person"}, "odd": {"enum": 5}},
        "$defs": {"person": person},
    }
    text = declared(read_tools([{"name": "make", "parameters": schema}]), "typescript")
    assert "odd?: any," in text
    assert text.count("child0?: {") == 1
    assert text.count("child0?: any,") == 3
    assert text.count("child") == 3 + 9


def test_the_extended_tokenizer_keeps_every_token_and_is_written_and_read_back(
    tuning_inputs: Path, tmp_path: Path
) -> None:
    plain = load_tokenizer(tuning_inputs / "tokenizer")
    extended = write_chat_tokenizer(tuning_inputs / "tokenizer", tmp_path, SHIPPED)
    assert {t: n for t, n in extended.get_vocab().items() if n < plain.get_vocab_size()} == plain.get_vocab()
    assert extended.get_vocab_size() == plain.get_vocab_size() + len(SHIPPED.names())
    assert read_markers(tmp_path) == (SHIPPED, "typescript")
    assert read_markers(tuning_inputs / "tokenizer") is None
    (tmp_path / "again").mkdir()
    again = write_chat_tokenizer(tmp_path, tmp_path / "again", SHIPPED)
    assert again.get_vocab() == extended.get_vocab(), "an sft checkpoint may be fine-tuned again"
    with pytest.raises(AbruzziError, match=r"does not know <\|im_system\|>"):
        ChatTemplate(plain, SHIPPED)
    (tmp_path / "chat_template.json").write_text("{}")
    with pytest.raises(AbruzziError, match="no description of a chat template"):
        read_markers(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(row=conversations(), data=st.data())
def test_a_dialogue_grows_by_its_tokens_and_nothing_is_encoded_again(
    template: ChatTemplate, row: dict[str, Any], data: st.DataObject
) -> None:
    messages = read_conversation(row).messages
    cut = data.draw(st.integers(0, len(messages)))
    turn = Conversation(({"role": "assistant", "content": data.draw(texts)},))
    told = [message for message in messages[cut:] if message["role"] != "assistant"]
    before = Conversation(messages[:cut], tuple(read_tools([WEATHER])))
    encoded = template.encode(turn)
    generated = encoded.tokens[encoded.is_learned].tolist()
    whole = Conversation((*messages[:cut], *turn.messages, *told), before.tools)
    assert template.prompt(whole) == template.prompt(before) + generated + template.continuation(told)


def test_what_an_environment_says_is_a_message_or_refused_by_name() -> None:
    told = {"role": "tool", "tool_call_id": "functions.f:3", "content": [{"type": "text", "text": "7"}], "name": "f"}
    assert read_observation(0, told) == {"role": "tool", "tool_call_id": "functions.f:3", "content": "7"}
    for wrong, reason in (
        ({"role": "assistant", "content": "x"}, "unknown_role"),
        ({"role": "tool", "tool_call_id": "call-3", "content": "7"}, "unknown_call"),
        ({"role": "user", "content": {"a": 1}}, "unsupported_content"),
    ):
        with pytest.raises(Malformed) as caught:
            read_observation(0, wrong)
        assert caught.value.reason == reason


def test_every_document_begins_with_the_end_of_the_one_before(template: ChatTemplate) -> None:
    encoded = template.encode(read_conversation(chat(0)))
    assert encoded.tokens[0] == template.tokenizer.token_to_id("<|endoftext|>")
    assert not encoded.is_learned[0]
    assert np.count_nonzero(encoded.tokens == encoded.tokens[0]) == 1
