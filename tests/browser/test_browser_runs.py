"""The list of runs: found, sorted, walked through by keyboard; what is chosen stands in the address."""

from __future__ import annotations

import re

import pytest
from browser.stand_in_recipe import recipe
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

NAMES = {"failed": "tiny-k2, own corpus", "finished": "tiny-k2, QK-Clip", "other": "tiny-k2, plain Muon", "live": "tiny-k2, two ranks"}  # fmt: skip


def listed(page: Page) -> list[str]:
    """Names in their order."""
    return page.get_by_role("table", name="Runs").get_by_role("row").get_by_role("link").all_inner_texts()


def only_these(page: Page) -> None:
    """The four runs of the world, newest first; others may have been made by other tests."""
    page.goto("/runs?q=tiny-k2%2C")
    expect(page.get_by_role("table", name="Runs").get_by_role("link")).to_have_count(len(NAMES))


def test_the_list_shows_each_run_with_its_state_and_figures(page):
    only_these(page)
    for key, state in (("failed", "failed"), ("finished", "succeeded"), ("live", "running")):
        row = page.get_by_role("row").filter(has_text=NAMES[key])
        expect(row).to_contain_text(state if key != "live" else re.compile(r"\d+(\.\d)? %"))
    finished = page.get_by_role("row").filter(has_text=NAMES["finished"])
    expect(finished).to_contain_text("1.873")
    expect(finished.get_by_role("img", name="evaluate succeeded")).to_be_visible()


def test_text_and_state_filter_the_list_and_stand_in_the_address(page):
    page.goto("/runs")
    page.get_by_label("Filter by name, recipe or id").fill("plain")
    expect(page.get_by_role("table", name="Runs").get_by_role("link")).to_have_text([NAMES["other"]])
    expect(page).to_have_url(re.compile(r"q=plain"))
    page.get_by_label("Filter by name, recipe or id").fill("tiny-k2,")
    page.get_by_role("button", name="Only failed").click()
    expect(page.get_by_role("table", name="Runs").get_by_role("link")).to_have_text([NAMES["failed"]])
    page.reload()
    expect(page.get_by_role("table", name="Runs").get_by_role("link")).to_have_text([NAMES["failed"]])
    expect(page.get_by_role("button", name="Only failed")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Filter by name, recipe or id").fill("nothing is called that")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.get_by_role("table", name="Runs").get_by_role("link", name=NAMES["live"])).to_be_visible()
    expect(page).to_have_url(re.compile(r"/runs$"))


def test_what_is_not_valid_in_an_address_is_passed_over(page, world):
    page.goto("/runs?state=nonsense&sort=nonsense&sel=7&q=tiny-k2%2C")
    expect(page.get_by_role("table", name="Runs").get_by_role("link")).to_have_count(len(NAMES))
    page.goto(f"/runs/{world.runs['finished']}?tab=nonsense&x=nonsense&smooth=7&zoom=b,a&stage=nonsense&rank=-1")
    expect(page.get_by_role("tab", name="Curves")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("radio", name="Step")).to_be_checked()
    expect(page.get_by_role("region", name="Loss", exact=True)).to_be_visible()


def test_a_click_on_a_heading_sorts_and_reload_keeps_it(page):
    only_these(page)
    links = page.get_by_role("table", name="Runs").get_by_role("link")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("columnheader", name="Run", exact=True)).to_have_attribute("aria-sort", "ascending")
    expect(links).to_have_text(sorted(NAMES.values(), key=str.lower))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("columnheader", name="Run", exact=True)).to_have_attribute("aria-sort", "descending")
    expect(links).to_have_text(sorted(NAMES.values(), key=str.lower, reverse=True))
    page.reload()
    expect(page.get_by_role("columnheader", name="Run", exact=True)).to_have_attribute("aria-sort", "descending")
    expect(links).to_have_text(sorted(NAMES.values(), key=str.lower, reverse=True))


def test_the_list_is_walked_selected_and_compared_by_keyboard(page, world):
    only_these(page)
    order = listed(page)
    page.keyboard.press("j")
    expect(page.locator('[aria-current="true"]').get_by_role("link")).to_have_text(order[0])
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator('[role=row][aria-current="true"]').get_by_role("link")).to_have_text(order[1])
    page.keyboard.press("x")
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.keyboard.press("c")
    expect(page).to_have_url(re.compile(r"/compare\?runs="))
    expect(page.get_by_role("heading", level=1, name="Compare")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("checkbox", name=f"Select {order[1]}")).to_be_checked()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name=order[0])).to_be_visible()


def test_enter_belongs_to_the_link_or_button_that_has_the_focus(page):
    only_these(page)
    page.keyboard.press("j")
    page.get_by_role("button", name="Loss", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="Loss", exact=True)).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="New run").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="New run")).to_be_visible()


def test_the_place_of_the_keyboard_stays_with_its_run_when_others_come(page, world):
    world.until_ended(world.submit(recipe(name="moves", only="corpus"), "moves, first"))
    page.goto("/runs?q=moves")
    expect(page.get_by_role("link", name="moves, first")).to_be_visible()
    page.keyboard.press("j")
    here = page.locator('[role=row][aria-current="true"]').get_by_role("link")
    expect(here).to_have_text("moves, first")
    late = world.submit(recipe(name="moves", only="corpus"), "moves, second")
    expect(page.get_by_role("link", name="moves, second")).to_be_visible()
    assert listed(page) == ["moves, second", "moves, first"]
    expect(here).to_have_text("moves, first")
    world.until_ended(late)


def test_the_platform_sorts_by_a_figure_with_those_that_lack_it_last(page):
    only_these(page)
    with page.expect_request(re.compile(r"/api/v1/runs\?.*sort=loss&order=asc")):
        page.get_by_role("button", name="Loss", exact=True).click()
    expect(page.get_by_role("columnheader", name="Loss", exact=True)).to_have_attribute("aria-sort", "ascending")
    expect(page.get_by_role("table", name="Runs").get_by_role("link").last).to_have_text(NAMES["failed"])
    page.get_by_role("button", name="Loss", exact=True).click()
    expect(page.get_by_role("columnheader", name="Loss", exact=True)).to_have_attribute("aria-sort", "descending")
    expect(page.get_by_role("table", name="Runs").get_by_role("link").last).to_have_text(NAMES["failed"])


def test_the_filter_box_follows_the_address(page):
    page.goto("/runs?q=plain")
    box = page.get_by_label("Filter by name, recipe or id")
    expect(box).to_have_value("plain")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Runs").click()
    expect(page).to_have_url(re.compile(r"/runs$"))
    expect(box).to_have_value("")
    page.go_back()
    expect(box).to_have_value("plain")
    expect(page.get_by_role("table", name="Runs").get_by_role("link")).to_have_text([NAMES["other"]])


def test_slash_goes_to_the_filter_and_letters_typed_there_are_no_shortcuts(page):
    page.goto("/runs")
    expect(page.get_by_role("table", name="Runs")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Filter by name, recipe or id")).to_be_focused()
    page.keyboard.type("gt?jx")
    expect(page.get_by_label("Filter by name, recipe or id")).to_have_value("gt?jx")
    expect(page).to_have_url(re.compile(r"/runs\?q="))


def test_question_mark_lists_the_keys_and_two_keys_go_somewhere(page):
    page.goto("/runs")
    expect(page.get_by_role("table", name="Runs")).to_be_visible()
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard")
    expect(sheet).to_contain_text("Compare what is selected")
    expect(sheet).to_contain_text("Go to runs")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    for key, title in (("t", "Tokens"), ("n", "New run"), ("c", "Compare"), ("r", "Runs")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page.get_by_role("heading", level=1, name=title, exact=True)).to_be_visible()
        page.mouse.click(700, 22)  # out of the editor, where letters are text


def test_the_palette_finds_a_run_and_acts(signed_in):
    page, _ = signed_in()
    page.goto("/runs")
    expect(page.get_by_role("table", name="Runs")).to_be_visible()
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Run, page or action").fill("plain")
    expect(page.get_by_role("option", name=NAMES["other"])).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name=NAMES["other"])).to_be_visible()
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Run, page or action").fill("light theme")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_a_chosen_theme_stays_and_system_follows_the_system(signed_in):
    page, _ = signed_in(theme="dark")
    page.goto("/runs")
    body, colour = page.locator("body"), "() => getComputedStyle(document.body).backgroundColor"
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("menuitem", name="Light").click()
    expect(body).not_to_have_css("background-color", dark)
    light = page.evaluate(colour)
    page.reload()
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(body).to_have_css("background-color", light)
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("menuitem", name="Follow the system").click()
    expect(body).to_have_css("background-color", dark)
    page.emulate_media(color_scheme="light")
    expect(body).to_have_css("background-color", light)
    assert light != dark
