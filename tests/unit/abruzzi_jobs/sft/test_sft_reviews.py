"""People's verdicts: asked for once, kept for the attempts that follow, and stronger than the fate that a row was given."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from tuning_lab import TuningLab, chat

from abruzzi.client.stage import StageContext
from abruzzi.contracts.dataset import ReviewOut, Verdict
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.sft import reviews
from abruzzi_jobs.sft.rows import made_rows

ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def said(**verdicts: str) -> list[ReviewOut]:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    return [
        ReviewOut(row_id=row, verdict=Verdict(verdict), note="", by="ada", at=now) for row, verdict in verdicts.items()
    ]


def test_the_first_attempt_asks_and_later_ones_see_the_same(lab: TuningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lab.made("conversations", [{"id": "a", "fate": "kept", **chat(0)}, {"id": "b", "fate": "review", **chat(1)}])
    answers = [said(a="reject", b="accept"), said(a="accept")]
    asked: list[str] = []

    def read(context: StageContext, name: str) -> list[ReviewOut]:
        asked.append(name)
        return answers.pop(0)

    monkeypatch.setattr(reviews, "read_reviews", read)
    found = []
    for epoch in (1, 2):
        spec = lab.tuning({"data": {"sources": ["x.jsonl"]}}, epoch=epoch, inputs={"conversations": made})
        folder = lab.root / f"attempt-{epoch}"
        folder.mkdir()
        context = StageContext(spec, 0, 1, folder, lab.store)
        found.append(reviews.settled_reviews(context, ALONE, ("conversations", "trajectories")))
    assert found[0] == found[1] == {"conversations": {"a": "reject", "b": "accept"}}
    assert asked == ["conversations"]


def test_people_s_word_goes_before_the_row_s_fate(lab: TuningLab, tmp_path: Path) -> None:
    rows = [
        {"id": "kept", "fate": "kept", **chat(0)},
        {"id": "rejected", "fate": "kept", **chat(1)},
        {"id": "accepted", "fate": "review", **chat(2)},
        {"id": "waiting", "fate": "review", **chat(3)},
    ]
    lab.made("conversations", rows)
    read = made_rows(tmp_path / "made-conversations", "conversations", {"rejected": "reject", "accepted": "accept"})
    assert {row.id: row.fate for row in read} == {
        "conversations/kept": "kept",
        "conversations/rejected": "rejected_by_people",
        "conversations/accepted": "kept",
        "conversations/waiting": "review",
    }
