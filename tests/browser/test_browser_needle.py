"""Needles: a heat map by depth and length, without YaRN and with it, the trained length marked, down to the transcripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser.axe import grave_violations
from browser.evaluation_recipe import evaluation_recipe
from browser.world import World
from playwright.sync_api import Page, expect

from abruzzi.contracts.states import RunState

pytestmark = pytest.mark.browser

STAGE = Path(__file__).with_name("needle_stage.py")


@pytest.fixture(scope="module")
def needles(world: World) -> str:
    """The run's id."""
    run = world.until_ended(world.submit(evaluation_recipe(name="needles", stage=STAGE), "needles"))
    assert run.state is RunState.SUCCEEDED, run.reason
    return run.id


def open_map(page: Page, run_id: str) -> None:
    """From the leaderboard, where a checkpoint whose positions are turned otherwise stands in a row of its own."""
    page.goto(f"/evaluations?run={run_id}")
    board = page.get_by_role("region", name="Leaderboard")
    expect(board.get_by_role("row")).to_have_count(3)
    board.get_by_role("link", name="train step-00000600, YaRN 4x1024, needle@1: ").click()
    expect(page.get_by_role("tab", name="Heat map")).to_have_attribute("aria-selected", "true")


def test_the_map_marks_the_trained_length_and_stands_beside_the_one_without_yarn(page: Page, needles: str) -> None:
    open_map(page, needles)
    plain = page.get_by_role("region", name="Needles: Without YaRN, as trained")
    turned = page.get_by_role("region", name="Needles: YaRN, 4 times 1,024 positions")
    for found in (plain, turned):
        expect(found.get_by_role("columnheader", name="within the trained length, 1,024 tokens")).to_have_attribute(
            "colspan", "2"
        )
        expect(found.get_by_role("columnheader", name="beyond it")).to_have_attribute("colspan", "1")
        expect(found.get_by_role("columnheader", name="3,380 tokens")).to_contain_text("2,600 words")
        expect(found.get_by_role("button", name="700 words, depth 50 %: ")).to_contain_text("5/5, 57–100")
    expect(plain.get_by_role("button", name="2,600 words, depth 50 %: ")).to_contain_text("0/5, 0–43")
    expect(turned.get_by_role("button", name="2,600 words, depth 50 %: ")).to_contain_text("1/5, 4–62")
    expect(turned.get_by_role("button", name="2,600 words, depth 0 %: ")).to_contain_text("100 %")
    assert grave_violations(page) == []


def test_a_cell_opens_its_transcripts(page: Page, needles: str) -> None:
    open_map(page, needles)
    page.get_by_role("region", name="Needles: YaRN").get_by_role("button", name="2,600 words, depth 50 %: ").click()
    expect(page.get_by_role("status", name="Rows shown")).to_have_text("5 rows")
    page.get_by_role("radio", name="Right").click()
    expect(page.get_by_role("status", name="Rows shown")).to_have_text("1 row")
    expect(page).to_have_url(re.compile("subtask"))
    page.go_back()
    page.get_by_role("region", name="Needles: Without YaRN").get_by_role(
        "button", name="2,600 words, depth 50 %: "
    ).click()
    expect(page.get_by_role("status", name="Rows shown")).to_have_text("5 rows")
    expect(page.get_by_role("heading", level=1)).not_to_contain_text("YaRN")
    assert grave_violations(page) == []
