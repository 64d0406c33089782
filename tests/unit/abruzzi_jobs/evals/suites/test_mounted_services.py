"""ACEBench's normal and special questions. The rows are ours, in their owner's published format."""

from __future__ import annotations

import asyncio
import json

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.evals.suites.mounted.table import table
from abruzzi_jobs.evals.suites.registry import open_suite
from abruzzi_jobs.evals.suites.suite import Transcript

BOOK = {
    "name": "hotel_book", "description": "Books a room.",
    "parameters": {
        "type": "object", "required": ["city", "nights"],
        "properties": {
            "city": {"type": "string"}, "nights": {"type": "integer"}, "quiet": {"type": "boolean"},
            "guests": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}},
        },
    },
}  # fmt: skip
ROWS = [
    {"id": "normal_single_turn_single_function_0", "ground_truth": {"hotel_book": {"city": "Rome", "nights": 2, "guests": [{"name": "Ann", "age": 40}]}}},
    {"id": "normal_single_turn_parallel_function_1", "ground_truth": {"hotel_book_1": {"city": "Rome", "nights": 2}, "hotel_book_2": {"city": "Oslo", "nights": 1}}},
    {"id": "normal_multi_turn_user_switch_3_1", "ground_truth": [{"hotel_book": {"city": "Rome", "nights": 2}}, {"hotel_book": {"city": "Roma", "nights": 2}}]},
    {"id": "special_incomplete_0", "ground_truth": {"hotel_book": ["city", "nights"]}},
    {"id": "special_error_param_0", "ground_truth": {"nights": ["two-ish"]}},
    {"id": "special_irrelevant_0", "ground_truth": "CAN NOT_CALL"},
    {"id": "agent_multi_turn_0", "ground_truth": [{"BaseApi": {"wifi": True}}]},
]  # fmt: skip


def mounted(folder, rows=ROWS, **config):
    lines = [
        json.dumps({"question": "user: A room, please.", "function": [BOOK], "time": "It is Monday.", **row})
        for row in rows
    ]
    (folder / table()["acebench-en"].file).write_text("\n".join(lines))
    return open_suite("acebench-en", SuiteConfig(path=str(folder), **config))


def test_gold_scores_one_and_perturbed_zero_in_each_category_but_the_agents(tmp_path):
    suite = mounted(tmp_path)
    items = list(suite.items())
    assert [item.subtask for item in items] == [
        "normal_single_turn_single_function", "normal_single_turn_parallel_function", "normal_multi_turn_user_switch", "special_incomplete",
        "special_error_param", "special_irrelevant",
    ]  # fmt: skip
    assert wrong(suite, items) == []
    shown = suite.messages(items[0])[0]["content"]
    assert "hotel_book" in shown
    assert "It is Monday." in shown


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("[hotel_book(city='rome, Italy', nights=2.0)]", 1.0),
        ("Here: [hotel_book(nights=2, city='Rome')]", 1.0),
        ("[hotel_book(city='Rome', nights=3)]", 0.0),
        ("[hotel_book(city='Rome')]", 0.0),
        ("[hotel_book(city='Rome', nights=2, quiet=true)]", 0.0),
        ("[hotel_book(city='Rome', nights=2), hotel_book(city='Rome', nights=2)]", 0.0),
        ("[hotel_book('Rome', 2)]", 0.0),
        ("[hotel_book(city=__import__('os').name, nights=2)]", 0.0),
        ("[" * 3000, 0.0),
        ("I will book it.", 0.0),
    ],
)
def test_calls_are_compared_argument_by_argument_and_nothing_of_them_runs(tmp_path, said, score):
    suite = mounted(tmp_path, [ROWS[2]])
    (item,) = suite.items()
    assert verdict(suite, item, said).score == score


def test_nested_values_lists_and_json_words_are_values(tmp_path):
    suite = mounted(tmp_path, [ROWS[0]])
    (item,) = suite.items()
    call = "[hotel_book(city='Rome', nights=2, guests={})]"
    assert verdict(suite, item, call.format("[{'name': 'ann', 'age': 40}]")).score == 1.0
    for guests in ("[{'name': 'Ann', 'age': true}]", "[{'name': 'Ann'}]", "[]", "null"):
        assert verdict(suite, item, call.format(guests)).reason.startswith("hotel_book: guests is"), guests


def test_calls_of_the_protocol_count_with_tools(tmp_path):
    suite = mounted(tmp_path, [ROWS[2]], tools=True)
    (item,) = suite.items()
    function = {"name": "hotel_book", "arguments": '{"city": "Rome", "nights": 2}'}
    message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    found = asyncio.run(suite.score(item, Transcript(messages=(message,), answer=""), {}))
    assert found.score == 1.0
    assert "hotel_book" not in suite.messages(item)[0]["content"]


def test_a_question_that_cannot_be_served_wants_each_name(tmp_path):
    suite = mounted(tmp_path, ROWS[3:5])
    incomplete, faulty = suite.items()
    assert (
        verdict(suite, incomplete, "Missing necessary parameters (city) for the api (hotel_book)").reason
        == "does not name nights"
    )
    assert verdict(suite, faulty, "There is incorrect value for nights").reason == "does not name two-ish"


def test_a_row_of_no_category_is_malformed(tmp_path):
    with pytest.raises(AbruzziError, match="names no category"):
        list(mounted(tmp_path, [{**ROWS[0], "id": "x"}]).items())
