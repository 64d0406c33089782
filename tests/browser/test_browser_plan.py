"""The page Plan: a recipe at full width, by rank and as a picture, or why it cannot be."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_k2_is_planned_by_rank_and_drawn(page: Page) -> None:
    page.goto("/runs")
    page.get_by_role("link", name="Plan", exact=True).click()
    table = page.get_by_role("region", name="Memory by pipeline rank")
    expect(table.get_by_role("row")).to_have_count(17)
    expect(table.get_by_role("row").nth(9)).to_contain_text("28.9 GB")
    expect(table.get_by_role("row").nth(1)).to_contain_text(re.compile(r"80 = ?48\.7 GB"))
    picture = page.get_by_role("img", name=re.compile("Planned schedule: 16 pipeline ranks"))
    expect(picture).to_be_visible()
    picture.hover(position={"x": 3, "y": 8})
    expect(page.get_by_text(re.compile(r"rank 0, chunk 0: forward, micro-batch \d"))).to_be_visible()


def test_nodes_that_do_not_fill_a_group_are_refused_and_stay_in_the_address(page: Page) -> None:
    page.goto("/plan?recipe=k2")
    page.get_by_label("Nodes").fill("40")
    expect(page.get_by_role("alert")).to_contain_text("40 nodes % 32 = 8: take 32 or 64 nodes.")
    expect(page).to_have_url(re.compile("nodes=40"))
    page.get_by_label("Nodes").fill("64")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("region", name="Plan of pretrain")).to_contain_text(
        "64 nodes of 8: PP 16 × 4, EP 16, 512 ranks"
    )


def test_a_sweep_ranks_other_layouts_and_marks_the_price(page: Page) -> None:
    page.goto("/plan?recipe=tiny&price=2")
    page.get_by_role("button", name="Rank other layouts of the same ranks").click()
    expect(page.get_by_role("region", name="Layouts, fastest first").first.get_by_role("row").nth(1)).to_be_visible()
    expect(page).to_have_url(re.compile("sweep=true"))
