"""Preference data as lessons of a critic, in both orders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rl import TaughtGym
from abruzzi.contracts.rubric import GENERAL
from abruzzi_jobs.sft.preferences import own_preferences, taught_preferences
from abruzzi_jobs.sft.rows import ConversationRow


def said(row: ConversationRow) -> tuple[str, str]:
    assert row.conversation is not None
    return row.conversation.messages[-2]["content"], row.conversation.messages[-1]["content"]


def test_a_line_of_one_s_own_is_two_lessons(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    asked = {"role": "user", "content": "Why is the sea salty?"}
    lines = [
        {"prompt": "Why is the sea salty?", "chosen": "Rivers.", "rejected": "Fish."},
        {
            "chosen": [asked, {"role": "assistant", "content": "Rivers."}],
            "rejected": [asked, {"role": "assistant", "content": "Fish."}],
        },
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = list(own_preferences(str(file), GENERAL, "short"))
    expected = [
        ("Why is the sea salty?\nA: Rivers.\nB: Fish.\nBetter?", "A"),
        ("Why is the sea salty?\nA: Fish.\nB: Rivers.\nBetter?", "B"),
    ]
    assert [said(row) for row in rows] == expected * 2
    full = [said(row)[0] for row in own_preferences(str(file), GENERAL, "full")]
    assert all(rubric.text in full[0] for rubric in GENERAL.rubrics)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [({"prompt": "Q", "chosen": "a"}, "no text for 'rejected'"), ({"chosen": "a", "rejected": "b"}, "no question")],
)
def test_what_is_no_preference_is_named_with_its_line(tmp_path: Path, line: dict[str, str], sentence: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(AbruzziError) as raised:
        list(own_preferences(str(file), GENERAL, "short"))
    assert re.search(rf"pairs\.jsonl.*{sentence}", raised.value.message)


def test_an_environment_s_right_answers_beside_wrong_ones_of_its_own() -> None:
    taught = TaughtGym(name="arithmetic", families=("addition",), conversations=6, form="preferences")
    rows = list(taught_preferences(taught, GENERAL, "short", seed=3))
    assert len(rows) >= 8
    for row in rows:
        asked, better = said(row)
        match = re.fullmatch(r"(\d) \+ (\d) =\nA: (\d+)\nB: (\d+)\nBetter\?", asked)
        assert match is not None, asked
        first, second, a, b = map(int, match.groups())
        assert {"A": a, "B": b}[better] == first + second != {"A": b, "B": a}[better]
