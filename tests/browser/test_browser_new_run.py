"""A recipe becomes a run: mistakes stand at their lines with the way out, the plan says what it takes."""

from __future__ import annotations

import re

import pytest
from browser.stand_in_recipe import recipe
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def write(page: Page, text: str) -> None:
    editor = page.get_by_label("Recipe in TOML")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def test_a_bad_recipe_shows_line_key_and_remedy_and_cannot_be_submitted(page):
    page.goto("/runs/new")
    submit = page.get_by_role("button", name="Submit")
    expect(submit).to_be_enabled()
    good = recipe(name="typed-in", only="corpus")
    write(page, good.replace("ranks = 1", "rnks = 1"))
    mistakes = page.get_by_role("status", name="Mistakes")
    expect(mistakes).to_contain_text("rnks")
    line = good.splitlines().index("ranks = 1") + 1
    expect(mistakes).to_contain_text(f"line {line}")
    expect(mistakes).to_contain_text("ranks")
    expect(submit).to_be_disabled()
    expect(page.locator(".cm-lint-marker-error").first).to_be_visible()
    write(page, "version = 1\nname = ")
    expect(mistakes).to_contain_text("line 2")


def test_a_good_recipe_is_planned_and_submitted(page, world):
    page.goto("/runs/new")
    write(page, recipe(name="typed-in", only="corpus"))
    expect(page.get_by_role("region", name="Plan")).to_contain_text("1 rank on local")
    page.get_by_label("Name of the run").fill("typed in by hand")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1, name="typed in by hand")).to_be_visible()
    expect(page.get_by_label("State of the run")).to_contain_text("succeeded")
    page.goto("/runs?q=typed-in")
    expect(page.get_by_role("link", name="typed in by hand")).to_be_visible()


def test_the_shipped_recipe_is_planned_in_parameters_and_time(page):
    page.goto("/runs/new?recipe=tiny")
    plan = page.get_by_role("region", name="Plan")
    expect(plan.get_by_text("Parameters").first).to_be_visible()
    expect(plan).to_contain_text(re.compile(r"[\d.]+M, [\d.]+M active"))
    page.get_by_label("Recipe to begin with").select_option("k2")
    expect(plan).to_contain_text("1.026T, 32.86B active")
    expect(page).to_have_url(re.compile("recipe=k2"))
