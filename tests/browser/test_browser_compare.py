"""Runs side by side: figures against a baseline, what the recipes do differently, curves on top of each other."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def compare(page: Page, *run_ids: str) -> None:
    page.goto(f"/compare?runs={json.dumps(run_ids)}")


def test_curves_lie_on_top_of_each_other(page, world):
    compare(page, world.runs["finished"], world.runs["other"])
    loss = page.get_by_role("region", name="Loss", exact=True)
    expect(loss.get_by_role("row", name="tiny-k2, QK-Clip")).to_be_attached()
    expect(loss.get_by_role("row", name="tiny-k2, plain Muon")).to_be_attached()
    logits = page.get_by_role("region", name="Max attention logit, highest layer")
    expect(logits.get_by_role("listitem")).to_have_count(2)
    held, grown = (float(logits.get_by_role("row").nth(i).get_by_role("cell").nth(2).inner_text()) for i in (1, 2))
    assert held < 110 < 200 < grown


def test_only_what_differs_in_the_recipes_is_shown_unless_asked(page, world):
    compare(page, world.runs["finished"], world.runs["other"])
    recipe = page.get_by_role("region", name="Recipe").last
    expect(recipe.get_by_role("row")).to_have_count(1 + 4)
    for key, mine, theirs in (
        ("CLIP", "1", "0"),
        ("PEAK_LR", "2e-3", "3e-3"),
        ("pretrain.container.env.SEED", "1", "2"),
    ):
        expect(recipe.get_by_role("row").filter(has_text=key).get_by_role("cell")).to_have_text(
            [re.compile(key), re.compile(mine), re.compile(theirs)]
        )
    page.get_by_role("button", name="All keys, also those that are the same").click()
    expect(page).to_have_url(re.compile("all=true"))
    expect(recipe.get_by_role("row").filter(has_text="LAYERS")).to_be_visible()


def test_figures_stand_against_a_baseline_that_can_be_changed(page, world):
    compare(page, world.runs["finished"], world.runs["other"])
    table = page.get_by_role("region", name="Headline figures")
    other = table.get_by_role("row").filter(has_text="plain Muon")
    expect(other).to_contain_text("%")
    table.get_by_role("radio", name="tiny-k2, plain Muon is the baseline").check()
    expect(page).to_have_url(re.compile(f"base={world.runs['other']}"))
    expect(table.get_by_role("row").filter(has_text="QK-Clip")).to_contain_text("%")
    expect(other).not_to_contain_text("%")
    diff = page.get_by_role("region", name="Recipe").last
    expect(diff.get_by_role("columnheader", name="tiny-k2, plain Muon baseline")).to_be_visible()
    marked = diff.get_by_role("row").filter(has_text="PEAK_LR").locator("td.bg-selected")
    expect(marked).to_have_text(["2e-3"])


def test_a_run_keeps_its_colour_when_another_is_taken_out(page, world):
    compare(page, world.runs["finished"], world.runs["other"])
    table = page.get_by_role("region", name="Headline figures")
    stroke = table.get_by_role("row").filter(has_text="plain Muon").locator("svg line").first
    before = [stroke.get_attribute(name) for name in ("stroke", "stroke-dasharray")]
    table.get_by_role("button", name="Take tiny-k2, QK-Clip out of the comparison").click()
    expect(table.get_by_role("row")).to_have_count(2)
    assert [stroke.get_attribute(name) for name in ("stroke", "stroke-dasharray")] == before


def test_runs_come_and_go_and_the_address_follows(page, world):
    page.goto("/compare")
    expect(page.get_by_role("heading", name="Nothing to compare yet")).to_be_visible()
    for key, words in (("finished", "QK-Cl"), ("live", world.runs["live"])):
        page.get_by_role("button", name="Add a run").click()
        page.get_by_placeholder("Name, recipe or id").fill(words)
        expect(page.get_by_role("option")).to_have_count(1)
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(world.runs[key]))
    table = page.get_by_role("region", name="Headline figures")
    expect(table.get_by_role("row")).to_have_count(3)
    table.get_by_role("button", name="Take tiny-k2, QK-Clip out of the comparison").click()
    expect(table.get_by_role("row")).to_have_count(2)
    assert world.runs["finished"] not in page.url
