"""Environments and rubrics: looked at, edited, found again."""

from __future__ import annotations

import re

import pytest
from browser.axe import grave_violations
from browser.stand_in_recipe import recipe
from browser.world import World
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

REINFORCED = """
[[stage]]
id = "sft"
kind = "sft"
needs = ["corpus"]
base = "smollm2"
batch = { sequences = 2, sequence_length = 255 }
[[stage.data.gyms]]
name = "arithmetic"
conversations = 10

[[stage]]
id = "rl"
kind = "rl"
needs = ["sft"]
[stage.rl]
iterations = 10
budget = { tokens = 8 }
[[stage.rl.environments]]
name = "arithmetic"
families = ["addition"]
options = { digits = 2 }
[[stage.rl.environments]]
name = "my.package:Gym"
"""


def test_environments_are_told_with_their_families_and_the_stages_that_play_them(page: Page, world: World) -> None:
    run_id = world.submit(recipe(name="rewarded", only="corpus", fail="corpus") + REINFORCED, "rewarded")
    page.goto("/runs")
    page.get_by_role("link", name="Environments").click()
    table = page.get_by_role("region", name="Environments")
    expect(table.get_by_role("list", name="Families of arithmetic")).to_contain_text("comparison")
    expect(table).to_contain_text("safety")
    play = table.get_by_role("row").filter(has_text=run_id).filter(has_text="addition · digits 2")
    expect(play).to_have_count(1)
    expect(table.get_by_role("row").filter(has_text="my.package:Gym")).to_contain_text("your own")
    assert grave_violations(page) == []
    page.get_by_label("Filter").fill("comparison")
    expect(table.get_by_role("row").filter(has_text="attacker")).to_have_count(0)
    play.get_by_role("link", name="rewarded").click()
    expect(page).to_have_url(re.compile(rf"/runs/{run_id}\?stage=rl"))


def test_rubrics_are_edited_into_versions_and_older_ones_stay(page: Page, world: World) -> None:
    page.goto("/rubrics")
    expect(page.get_by_role("region", name="Rubrics")).to_contain_text("clarity and relevance")
    assert grave_violations(page) == []
    page.get_by_role("button", name="New set").click()
    naming = page.get_by_role("dialog", name="New rubrics")
    naming.get_by_label("Name").fill("house-style")
    naming.get_by_role("button", name="Write them").click()
    expect(naming).to_have_count(0)
    editor = page.get_by_role("form", name="Edit house-style")
    editor.get_by_label("Name").fill("brevity")
    expect(editor.get_by_role("status")).to_have_text("brevity says nothing.")
    editor.get_by_label("What the critic reads").fill("Says it in one sentence.")
    assert grave_violations(page) == []
    editor.get_by_role("button", name="Save as version 1").click()
    shown = page.get_by_role("region", name="Rubrics")
    expect(shown).to_contain_text("Says it in one sentence.")
    page.get_by_role("button", name="Edit").click()
    editor.get_by_role("button", name="Mandatory").click()
    editor.get_by_role("button", name="Add a rubric").click()
    editor.get_by_label("Name").last.fill("warmth")
    editor.get_by_label("What the critic reads").last.fill("Warm, and to the point.")
    editor.get_by_role("button", name="Save as version 2").click()
    expect(shown).to_contain_text("who loses by it loses")
    expect(shown).to_contain_text("warmth")
    page.get_by_label("Version").select_option("1")
    expect(shown).not_to_contain_text("warmth")
    page.reload()
    expect(page.get_by_label("Set")).to_have_value("house-style")
    expect(page.get_by_label("Version")).to_have_value("1")
    expect(shown).to_contain_text("Says it in one sentence.")
