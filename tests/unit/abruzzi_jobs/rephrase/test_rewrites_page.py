"""Rewrites as a page: side by side, what is wrong marked in both."""

from __future__ import annotations

from typing import Any

from abruzzi_jobs.rephrase.page import page, sampled


def row(**more: Any) -> dict[str, Any]:
    source = "The tower has 24 floors.\nIt was built by Ann | Co."
    return {
        "id": "a", "fate": "number", "name": "tower", "document": "d", "source": "texts", "licence": "MIT", "generator": "m", "style": "plain",
        "perspective": "neutral", "source_text": source, "text": "With <b> 42 floors.", "chunks": [{"source": source, "text": "", "tries": 3}],
        "faults": [
            {"kind": "number", "layer": "rules", "detail": "42 is new here", "source_span": [14, 16], "text_span": [9, 11]},
            {"kind": "number", "layer": "rules", "detail": "24 is missing", "source_span": [14, 23], "text_span": None},
        ],
        **more,
    }  # fmt: skip


DESCRIBED = {"rows": 2, "teacher": "llm", "prompt_version": "1-abc", "fates": {"kept": 1, "number": 1}}


def test_faults_are_marked_where_they_are_and_told_below() -> None:
    text = page([row()], DESCRIBED)
    assert "| The tower has **⟦24 floors⟧**.<br>It was built by Ann \\| Co. | With &lt;b> **⟦42⟧** floors. |" in text
    assert "- `number` (rules): 42 is new here\n- `number` (rules): 24 is missing" in text
    assert "kept 1, number 1" in text


def test_a_draw_is_the_same_for_the_same_seed_and_of_one_fate_where_asked() -> None:
    rows = [row(id=str(n), fate="kept" if n % 3 else "number") for n in range(30)]
    drawn = sampled(rows, 5, fate="kept", seed=1)
    assert sampled(rows, 5, fate="kept", seed=1) == drawn != sampled(rows, 5, fate="kept", seed=2)
    assert {r["fate"] for r in drawn} == {"kept"}
    assert len(sampled(rows, 99, fate=None, seed=0)) == 30
