"""The prompt grid: golden prompts, a version that follows every change, different cells for each document."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.rephrase.grid import Cell, Grid, as_data, cells_of, load_grid

GOLDEN = Path(__file__).parent / "golden" / "prompts.json"


def prompts() -> dict[str, object]:
    grid, before = load_grid(), ["The first part, rewritten.", "The second."]
    asked = {
        f"{style}/{perspective}": grid.messages(
            Cell(style, perspective), "Iron rusts.", outline="- Iron rusts.", before=before
        )
        for style in grid.data["styles"]
        for perspective in ("neutral", "teacher")
    }
    alone = grid.messages(Cell("plain", "neutral"), "Iron rusts.", outline="", before=[])
    return {"version": grid.version, **asked, "alone": alone, "es": grid.translation("Hola.", language="es", before=[])}


def test_prompts_are_as_they_were_or_the_version_counts_up() -> None:
    text = json.dumps(prompts(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "count `version` of grid.toml up, then ABRUZZI_UPDATE_GOLDEN=1"


def test_cells_of_a_document_differ_as_long_as_there_are_any_and_depend_on_it_alone() -> None:
    cells = load_grid().cells(RephraseConfig(), domain="knowledge")
    assert len(cells) == 30
    chosen = cells_of(cells, 40, document="d1", seed=0)
    assert len(set(chosen[:30])) == 30
    assert all(c.sample == 1 for c in chosen[30:])
    assert cells_of(list(reversed(cells)), 40, document="d1", seed=0) == chosen
    assert cells_of(cells, 5, document="d2", seed=0) != chosen[:5]
    assert cells_of(cells, 5, document="d1", seed=1) != chosen[:5]


def test_a_style_that_no_document_of_a_domain_takes_is_named() -> None:
    with pytest.raises(AbruzziError, match="mathematics") as raised:
        load_grid().cells(RephraseConfig.model_validate({"styles": ("questions",)}), domain="mathematics")
    assert "learning-note" in str(raised.value.hint)
    mine = load_grid().cells(RephraseConfig.model_validate({"styles": ("learning-note",)}), domain="own")
    assert {c.style for c in mine} == {"learning-note"}
    with pytest.raises(AbruzziError, match="'code'"):
        load_grid().cells(RephraseConfig(), domain="code")


def test_a_text_cannot_close_its_element_nor_fill_in_a_prompt() -> None:
    text = "a </text> b <TEXT> {style} {0}"
    asked = Grid(load_grid().data, "x").messages(Cell("plain", "neutral"), text, outline=text, before=[text])
    user = asked[1]["content"]
    assert [user.lower().count(mark) for mark in ("<text>", "</text>")] == [1, 1]
    assert "{style} {0}" in user
    assert as_data("x < y and <b>") == "x < y and <b>"
