"""ACEBench's agent part over a small repository of ours in its owner's layout: data, prompts, and programs of services."""

from __future__ import annotations

import json

import pytest
from evals_oracle import verdict, wrong
from scripted_model import Scripted, played, said

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.chat.request import ToolCall
from abruzzi_jobs.evals.suites.registry import open_suite

BASE = """
class BaseApi:
    def __init__(self):
        self.wifi = False
        self.logged_in = True

    def _load_scenario(self, scenario, long_context=False):
        self.wifi = scenario.get("wifi", False)
        self.logged_in = scenario.get("logged_in", True)

    def turn_on_wifi(self):
        print("noise")
        self.wifi = True
        return {"status": True}
"""
MESSAGES = """
from model_inference.{part}.scenariosen.phone_platform.base_api import BaseApi

class MessageApi(BaseApi):
    def __init__(self):
        super().__init__()
        self.inbox = {{1: {{"message": "Hello."}}}}
        self.users = ["Ann", "Bob"]

    def send_message(self, receiver_name, message):
        if not self.wifi:
            return {{"status": False, "message": "Wi-Fi is off"}}
        self.inbox[len(self.inbox) + 1] = {{"message": message}}
        return {{"status": True}}

    def count_messages(self):
        return len(self.inbox)
"""
EMPTY = "class {name}:\n    def _load_scenario(self, scenario, long_context=False):\n        pass\n"
PROMPTS = 'MULTI_TURN_AGENT_PROMPT_SYSTEM_EN = """Serve the user."""\nMULTI_TURN_AGENT_PROMPT_USER_EN = """APIs: {functions}\\n\\nHistory:\\n{history}"""\n'
FUNCTIONS = [
    {"name": "turn_on_wifi", "description": "On.", "parameters": {"type": "dict", "properties": {}, "required": []}},
    {
        "name": "send_message", "description": "Sends.",
        "parameters": {
            "type": "dict", "required": ["receiver_name", "message"],
            "properties": {"receiver_name": {"type": "string"}, "message": {"type": "string"}},
        },
    },
]  # fmt: skip
SENT = "[send_message(receiver_name='Bob', message='Don't be late')]"
WAY = ["[turn_on_wifi()] ", SENT]
STATE = [
    {"BaseApi": {"wifi": True, "logged_in": True}},
    {"MessageApi": {"inbox": {"2": {"message": "Don't be late"}}}},
    {"Misspelt": {}},
]


def mounted(folder, *, way=WAY, **config):
    root = folder / "ACEBench"
    files = {
        "model_inference/prompt_en.py": 'TRAVEL_PROMPT_EN = "Fly."\nBASE_PROMPT_EN = """It is Monday."""\nimport nothing_that_exists\n',
        "model_inference/multi_turn/common_agent.py": PROMPTS, "model_inference/multi_step/common_agent_step.py": PROMPTS,
        "model_inference/multi_turn/APIModel_user.py": 'SYSTEM_PROMPT_TRAVEL_EN = "x"\nSYSTEM_PROMPT_BASE_EN = "You are a customer. {instruction}"\n',
    }  # fmt: skip
    for part in ("multi_turn", "multi_step"):
        programs = f"model_inference/{part}/scenariosen"
        files |= {
            f"{programs}/phone_platform/base_api.py": BASE, f"{programs}/phone_platform/message.py": MESSAGES.format(part="multi_turn"),
            f"{programs}/phone_platform/reminder.py": EMPTY.format(name="ReminderApi"), f"{programs}/travel.py": EMPTY.format(name="Travel"),
            f"{programs}/phone_platform/food_services.py": EMPTY.format(name="FoodPlatform"),
        }  # fmt: skip
        row = {
            "id": f"agent_{part}_0", "question": "Tell Bob not to be late.", "initial_config": {"BaseApi": {"wifi": False}}, "path": [],
            "function": FUNCTIONS, "involved_classes": ["BaseApi", "MessageApi"],
        }  # fmt: skip
        right = {"id": row["id"], "ground_truth": STATE, "mile_stone": way}
        files |= {
            f"data_all/data_en/data_agent_{part}.json": json.dumps(row) + "\n",
            f"data_all/data_en/possible_answer/data_agent_{part}.json": json.dumps(right) + "\n",
        }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return open_suite("acebench-agent", SuiteConfig(path=str(folder), **config))


def test_the_owners_milestones_reach_the_state_and_nothing_does_not(tmp_path):
    suite = mounted(tmp_path)
    items = list(suite.items())
    assert [item.subtask for item in items] == ["multi_turn", "multi_step"]
    assert wrong(suite, items) == []
    assert verdict(suite, items[0], "[]").parts == {"process": 0.0}
    idle = items[0].model_copy(update={"gold": {"state": {}, "ways": [WAY]}})
    assert verdict(suite, idle, "[]").reason == "nothing is called", "whatever the state that is expected"


@pytest.mark.parametrize(
    ("stones", "process"),
    [([SENT], 0.0), (["[turn_on_wifi()]"], 0.5), (["[turn_on_wifi( )]", SENT[:-8] + "early')]"], 0.5)],
)
def test_a_state_that_is_not_reached_counts_its_milestones_in_their_order(tmp_path, stones, process):
    suite = mounted(tmp_path, options={"parts": ["multi_step"]})
    (item,) = suite.items()
    found = verdict(suite, item, json.dumps(stones))
    assert (found.score, found.parts["process"]) == (0.0, process)
    assert found.reason.endswith("is not as it should be")


def test_of_several_ways_the_best_counts(tmp_path):
    suite = mounted(tmp_path, way=[["[login_device()]", SENT], WAY])
    item = next(suite.items())
    assert verdict(suite, item, json.dumps(["[turn_on_wifi()]"])).parts["process"] == 0.5


def test_in_several_turns_a_customer_is_served_until_he_ends_it(tmp_path):
    suite = mounted(tmp_path)
    item, _ = suite.items()
    target = Scripted(
        "To whom?", "[send_message(receiver_name='Bob', message='x')]", "[turn_on_wifi()]",
        '[send_message(receiver_name=\'Bob\', message="Don\'t be late")]', "It is sent.",
    )  # fmt: skip
    user = Scripted("Send a message.", "To Bob.", "finish conversation", repeats=True)
    transcript, found = played(suite, item, target, user=user)
    assert (found.score, found.parts["process"]) == (1.0, 1.0)
    assert user.asked[0].messages[0]["content"] == "You are a customer. Tell Bob not to be late."
    assert target.asked[0].messages[0]["content"] == "Serve the user.\nIt is Monday."
    history = target.asked[3].messages[1]["content"]
    assert "user: Send a message.\nagent: To whom?\nuser: To Bob.\n" in history
    assert 'execution: [{"status": false, "message": "Wi-Fi is off"}]' in history
    assert "send_message" in history
    assert [call[0] for step in transcript.state["steps"] for call in step] == [
        "send_message",
        "turn_on_wifi",
        "send_message",
    ]


def test_in_several_steps_nobody_answers(tmp_path):
    suite = mounted(tmp_path, tools=True)
    _, item = suite.items()
    send = ToolCall("c2", "send_message", json.dumps({"receiver_name": "Bob", "message": "Don't be late"}))
    target = Scripted(
        "To whom?", said("", ToolCall("c0", "send_message", "[]")), said("", ToolCall("c1", "turn_on_wifi", "{}")), said("", send),
        "Done: finish conversation",
    )  # fmt: skip
    transcript, found = played(suite, item, target, user=Scripted("finish conversation", repeats=True))
    assert found.score == 1.0
    assert {tool["function"]["name"] for tool in target.asked[0].tools} == {"turn_on_wifi", "send_message"}
    told = [message["content"] for message in transcript.messages if message["role"] == "tool"]
    assert told == ["Error during execution: the arguments are no JSON object", '{"status": true}', '{"status": true}']
    assert any("Nobody answers questions" in str(message["content"]) for message in transcript.messages[1:])


def test_a_target_that_never_ends_is_stopped_and_judged_by_what_it_did(tmp_path):
    suite = mounted(tmp_path)
    item, _ = suite.items()
    target = Scripted("[turn_on_wifi()]", repeats=True)
    _, found = played(suite, item, target, user=Scripted("finish conversation", repeats=True))
    assert (found.score, found.parts["process"], len(target.asked)) == (0.0, 0.5, 20)


def test_calls_of_what_is_not_there_and_of_what_is_private_are_words(tmp_path):
    suite = mounted(tmp_path)
    item, _ = suite.items()
    ended = suite.ended(
        item,
        [
            [
                ("_load_scenario", {"scenario": {"wifi": True}}),
                ("fly", {}),
                ("send_message", {"to": 1}),
                ("count_messages", {}),
            ]
        ],
    )
    private, unknown, unfit, count = ended.results[0]
    assert private == "Error during execution: name '_load_scenario' is not defined"
    assert unknown == "Error during execution: name 'fly' is not defined"
    assert "unexpected keyword argument 'to'" in unfit
    assert count == "1"
    assert ended.state["BaseApi"] == {"wifi": False, "logged_in": True}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("model_inference/multi_turn/scenariosen/travel.py", "No such file"),
        ("data_all/data_en/possible_answer/data_agent_multi_step.json", "No such file"),
    ],
)
def test_a_part_of_the_repository_that_is_missing_is_named_with_its_owner(tmp_path, path, told):
    mounted(tmp_path)
    (tmp_path / "ACEBench" / path).unlink()
    with pytest.raises(AbruzziError, match=told) as found:
        list(open_suite("acebench-agent", SuiteConfig(path=str(tmp_path))).items())
    assert path in str(found.value)
    assert "C. Chen and others" in str(found.value)


def test_a_prompt_that_is_missing_and_a_part_that_there_is_not_are_told(tmp_path):
    mounted(tmp_path)
    with pytest.raises(AbruzziError, match="no part is called 'single'"):
        mounted(tmp_path, options={"parts": ["single"]})
    (tmp_path / "ACEBench/model_inference/prompt_en.py").write_text("BASE_PROMPT_EN = 'x'\n")
    with pytest.raises(AbruzziError, match="it has no text TRAVEL_PROMPT_EN"):
        open_suite("acebench-agent", SuiteConfig(path=str(tmp_path)))
