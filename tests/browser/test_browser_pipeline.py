"""The tab Pipeline of a run: the measured timeline of a step beside the planned one, on one axis where they are of about the same length."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser.axe import grave_violations
from browser.program_recipe import program_recipe
from browser.world import World
from playwright.sync_api import Page, Route, expect

from abruzzi.contracts.states import RunState

pytestmark = pytest.mark.browser

STAGE = Path(__file__).with_name("pipeline_stage.py")
RECIPE = program_recipe("pipelined", "pretrain", STAGE)
TINY = Path(__file__).parents[2] / "recipes" / "tiny.toml"
LAYOUT = {
    "stage.pretrain.parallel.pp": "4",
    "stage.pretrain.resources.ranks": "4",
    "stage.pretrain.batch.micro_sequences": "2",
}


@pytest.fixture(scope="module")
def pipelined(world: World) -> str:
    run = world.until_ended(world.submit(RECIPE, "pipelined"))
    assert run.state is RunState.SUCCEEDED, run.reason
    return run.id


@pytest.fixture(scope="module")
def plan(world: World) -> dict[str, Any]:
    """What the platform plans for a stage `pretrain` of four pipeline ranks."""
    with world.client() as client:
        return client.recipes.plan(TINY.read_text(), LAYOUT, timeline=True)


def planned(page: Page, plan: dict[str, Any]) -> None:
    """The run's stage is a stand-in, of which nothing can be planned."""

    def answer(route: Route) -> None:
        route.fulfill(json=plan)

    page.route("**/api/v1/plan", answer)


def test_the_measured_timeline_stands_beside_the_planned_one(page: Page, pipelined: str, plan: dict[str, Any]) -> None:
    planned(page, plan)
    page.goto(f"/runs/{pipelined}")
    page.get_by_role("tab", name="Pipeline").click()
    expect(page.get_by_role("img", name=re.compile("^Planned: 4 pipeline ranks over 4 micro-batches"))).to_be_visible()
    measured = page.get_by_role("img", name=re.compile("^Measured, step 10: 4 pipeline ranks over 4 micro-batches"))
    measured.hover(position={"x": 3, "y": 8})
    expect(page.get_by_text(re.compile(r"rank 0: forward, micro-batch 0"))).to_be_visible()
    table = page.get_by_role("region", name="Planned and measured")
    expect(table.get_by_role("row")).to_have_count(7)
    expect(table.get_by_role("row", name=re.compile("^Step"))).to_contain_text("600 ms")
    expect(table.get_by_role("row").filter(has_text="Ranks idle")).to_contain_text(re.compile(r"\d+\.\d %.*\d+\.\d %"))
    assert grave_violations(page) == []


def test_without_a_plan_the_measured_one_stands_alone(page: Page, pipelined: str) -> None:
    page.goto(f"/runs/{pipelined}?tab=pipeline")
    expect(page.get_by_role("img", name=re.compile("^Measured, step 10"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Planned"))).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    assert json.loads(download.value.path().read_text())["step"] == 10


def test_a_stage_that_has_kept_none_has_no_such_tab(page: Page, world: World) -> None:
    page.goto(f"/runs/{world.runs['finished']}")
    expect(page.get_by_role("tab", name="Recipe")).to_be_visible()
    expect(page.get_by_role("tab", name="Pipeline")).to_have_count(0)
