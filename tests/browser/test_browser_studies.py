"""A study: its arms drawn beside the paper's finding, what agrees, and the picture to take away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser.axe import grave_violations
from browser.program_recipe import program_recipe
from browser.world import World
from playwright.sync_api import Page, expect

from abruzzi.contracts.states import RunState

pytestmark = pytest.mark.browser

STAGE = Path(__file__).with_name("study_stage.py")
RECIPE = program_recipe("study-heads", "compare", STAGE)


@pytest.fixture(scope="module")
def study(world: World) -> str:
    run = world.until_ended(world.submit(RECIPE, "heads in small"))
    assert run.state is RunState.SUCCEEDED, run.reason
    return run.id


def test_a_study_stands_beside_the_papers_finding_and_says_what_agrees(page: Page, study: str) -> None:
    page.goto(f"/runs/{study}")
    page.get_by_role("tab", name="Study").click()
    beside = page.get_by_role("region", name="Beside the paper")
    expect(beside).to_contain_text("The paper, section 2.3.")
    expect(beside).to_contain_text("0.5 to 1.2 % lower validation loss")
    lower, inference = beside.get_by_role("listitem").all()
    expect(lower).to_contain_text("agrees")
    expect(lower).to_contain_text("-0.80 % [-1.05, -0.55] at 64,000 tokens")
    expect(inference).to_contain_text("77 % more over a prompt")
    picture = page.get_by_role("img", name="twice as many")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 960
    arms = page.get_by_role("region", name="Arms")
    expect(arms.get_by_role("row")).to_have_count(5)
    expect(arms.get_by_role("row").nth(4)).to_contain_text("3.00e+11")
    assert grave_violations(page) == []


def test_the_picture_is_taken_away_as_png_and_the_figures_as_json(page: Page, study: str) -> None:
    page.goto(f"/runs/{study}?tab=study")
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename == f"{study}-study.png"
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    assert json.loads(download.value.path().read_text())["measure"] == "loss"


def test_a_run_that_compares_nothing_has_no_such_tab(page: Page, world: World) -> None:
    page.goto(f"/runs/{world.runs['finished']}")
    expect(page.get_by_role("tab", name="Recipe")).to_be_visible()
    expect(page.get_by_role("tab", name="Study")).to_have_count(0)
