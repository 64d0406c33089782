"""The simulated user: a script, or a model that is held to the facts."""

from __future__ import annotations

import pytest
from task_play import converse, some_tasks

from abruzzi.contracts.agent import Fact
from abruzzi_jobs.synthesis.judge import checks, judged
from abruzzi_jobs.synthesis.players import ScriptedAgent
from abruzzi_jobs.synthesis.user import STOP, UserSimulator

TASK = some_tasks()[0].model_copy(
    update={
        "instruction": "Raise the cash of account 3.",
        "facts": (
            Fact(name="by", text="By 250 cents.", value="250", told="asked", words=("how much", "amount")),
            Fact(name="then", text="Freeze account 4.", value="Freeze account 4.", told="after"),
        ),
    }
)
ASKING, REPORTING = "Could you tell me the amount?", "The cash is 750 now."


def heard(*texts: str) -> list[dict]:
    messages = [{"role": "system", "content": "secret rules"}, {"role": "user", "content": TASK.instruction}]
    for text in texts:
        messages.append({"role": "assistant" if len(messages) % 2 == 0 else "user", "content": text})
    return messages


def said(text: str | None, *texts: str) -> tuple[str, bool, list[str]]:
    user = UserSimulator(TASK)
    user.next(heard(*texts))
    return (*user.read(text), list(user.fallbacks))


def test_the_script_answers_what_is_asked_then_goes_on_then_ends():
    user = UserSimulator(TASK, scripted=True)
    assert user.first() == TASK.instruction
    assert user.next(heard("Which account?")).startswith("I am not sure what you mean.")
    assert user.next(heard(ASKING)) == "By 250 cents."
    assert user.next(heard(ASKING, "By 250 cents.", REPORTING)) == "Freeze account 4."
    assert user.next(heard(ASKING, "By 250 cents.", REPORTING, "Freeze account 4.", "It is frozen.")) is None
    assert user.ended == "user"


def test_a_question_in_other_words_is_answered_when_it_comes_again():
    user = UserSimulator(TASK, scripted=True)
    unsure = user.next(heard("Which sum?"))
    assert user.next(heard("Which sum?", unsure, "The sum to add?")) == "By 250 cents."
    assert (
        user.next(heard(ASKING, "By 250 cents.", "Really?")) == "I have told you all that I know. Please go on with it."
    )


def test_patience_ends():
    user = UserSimulator(TASK, scripted=True)
    for _ in range(TASK.persona.patience):
        assert user.next(heard("Who are you?")) is not None
    assert user.next(heard("Who are you?")) is None
    assert user.ended == "patience"


def test_a_model_sees_the_conversation_from_the_other_side_and_no_more_than_a_user_would():
    request = UserSimulator(TASK).next(heard(ASKING))
    roles = [message["role"] for message in request.messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert "secret rules" not in str(request.messages)
    assert "By 250 cents." in request.messages[0]["content"]
    assert request.messages[-1]["content"] == ASKING


@pytest.mark.parametrize(
    ("answer", "heard_last", "taken"),
    [
        ("It should be 250 cents, please.", ASKING, True),
        ('User: "250 cents"', ASKING, True),
        ("Some more money.", ASKING, "forgot_a_fact"),
        (STOP, ASKING, "forgot_a_fact"),
        (STOP, REPORTING, "left_early"),
        ("Good. freeze account 4.", REPORTING, True),
        ("Thanks.", REPORTING, "forgot_a_wish"),
        ("By 250 cents.", "I am looking at it.", "gave_away_a_fact"),
        ("By 250 cents.", "Which sum is it?", True),
        ("Account 17 it is.", "Which one?", "invented_a_number"),
        ("How can I help you today?", "Which one?", "plays_the_assistant"),
        ("I'm sorry for any confusion.", "Which one?", "plays_the_assistant"),
        ("", ASKING, "empty"),
        (None, ASKING, "empty"),
        ("250 " * 500, ASKING, "too_long"),
        ("Raise the cash of account 3.", "Which one?", "repeats"),
    ],
)
def test_what_a_model_says_is_taken_where_it_fits_and_the_script_speaks_otherwise(answer, heard_last, taken):
    text, ended, fallbacks = said(answer, heard_last)
    assert fallbacks == ([] if taken is True else [taken])
    assert ended is False
    script = UserSimulator(TASK, scripted=True).next(heard(heard_last))
    assert (text == script) is (taken is not True)


def test_a_model_that_cannot_end_is_ended():
    user = UserSimulator(TASK)
    through = (ASKING, "By 250 cents.", REPORTING, "Freeze account 4.", "It is frozen.")
    user.next(heard(*through))
    assert user.read("Are you sure that it is frozen?") == ("Are you sure that it is frozen?", False)
    user.next(heard(*through, "Are you sure that it is frozen?", "It is."))
    assert user.read("Good, good.") == ("", True)
    assert dict(user.fallbacks) == {"lingers": 1}
    assert user.ended == "user"


class Babbling(UserSimulator):
    """A model that says the same nonsense every time."""

    def next(self, messages):
        super().next(messages)
        text, ended = self.read("As an AI, I am the assistant and it costs 999 dollars.")
        return None if ended else text


def test_a_model_that_babbles_spoils_no_conversation():
    asking = [task for task in some_tasks() if any(fact.told == "asked" for fact in task.facts)]
    users = [Babbling(task) for task in asking]
    scores = [judged(u.task, checks(u.task, converse(u.task, ScriptedAgent(u.task), u))).score for u in users]
    assert scores == [1.0] * len(asking)
    assert all(user.fallbacks["plays_the_assistant"] for user in users)
