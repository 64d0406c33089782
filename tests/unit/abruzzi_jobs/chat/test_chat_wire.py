"""Whatever a server sends, reading it ends in an answer or in a TryFailed that says what follows."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.chat.failures import TryFailed
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse
from abruzzi_jobs.chat.wire import read_completion

ASKED = ChatRequest(messages=[{"role": "user", "content": "?"}], logprobs=1)
GOOD = {
    "model": "m",
    "choices": [
        {
            "message": {"content": "x", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "x", "logprob": -1.0}]},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["message", "content", "function", "id"]), inner)
    ),
    max_leaves=8,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = changed(value[path[0]], path[1:], new)
    return copied


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(GOOD)), ANY)
def test_any_part_of_an_answer_may_be_anything(path: tuple, new: object) -> None:
    with suppress(TryFailed):
        answer = read_completion(json.dumps(changed(GOOD, path, new)).encode(), ASKED, model="m")
        assert ChatResponse.from_dict(json.loads(json.dumps(answer.as_dict())), call_id="").text == answer.text


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.integers(0, 200).map(lambda n: json.dumps(GOOD).encode()[:n]))
def test_any_bytes_are_read(content: bytes) -> None:
    answer: ChatResponse | None = None
    with suppress(TryFailed):
        answer = read_completion(content, ASKED, model="m")
    assert answer is None or isinstance(answer.text, str)


def test_a_body_of_brackets_is_garbage_not_a_crash() -> None:
    with pytest.raises(TryFailed):
        read_completion(b"[" * 1_000_000 + b"]" * 1_000_000, ASKED, model="m")
