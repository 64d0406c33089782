"""The log of a rank: its end while it grows, search in the whole of it, a link to one line; text is text."""

from __future__ import annotations

import re
import time

import pytest
from browser.stand_in_recipe import recipe
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_the_end_of_the_log_arrives_while_the_stage_prints(page, world):
    go_on = world.folder / "print"
    run_id = world.submit(
        recipe(name="printing", only="pretrain", steps=200, pause=0.02, hold_at=49, hold_file=go_on), "printing"
    )
    page.goto(f"/runs/{run_id}?tab=logs")
    log = page.get_by_role("region", name=re.compile("Log of"))
    expect(log.get_by_text(re.compile(r"step +50/200"))).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(log.get_by_text(re.compile(r"step +200/200"))).to_have_count(0)
    go_on.touch()
    expect(log.get_by_text(re.compile(r"step +200/200"))).to_be_visible()
    expect(page.get_by_text("Complete", exact=True)).to_be_visible()


def test_each_rank_has_its_log_and_escape_codes_are_not_shown(page, world):
    page.goto(f"/runs/{world.runs['live']}?tab=logs&stage=pretrain&line=0")
    log = page.get_by_role("region", name=re.compile("Log of"))
    expect(log).to_contain_text("rank 0 of 2")
    expect(log).to_contain_text("Muon owns 38 matrices, AdamW owns 9 tensors")
    page.get_by_label("Rank", exact=True).select_option("rank 1")
    expect(page).to_have_url(re.compile("rank=1"))
    expect(page.get_by_role("region", name=re.compile("Log of .*, rank 1"))).to_be_visible()


def test_search_looks_in_the_whole_log_and_a_hit_leads_to_its_place(page, world):
    page.goto(f"/runs/{world.runs['finished']}?tab=logs&stage=pretrain")
    page.get_by_label("Search the whole log").fill("COMMITTED")
    hits = page.get_by_role("region", name="Lines with COMMITTED")
    expect(hits.locator("mark")).to_have_count(4)
    expect(page).to_have_url(re.compile("find=COMMITTED"))
    hits.focus()
    page.keyboard.press("Tab")
    expect(hits.get_by_role("button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"line=\d+"))
    log = page.get_by_role("region", name=re.compile("Log of"))
    expect(log.get_by_text("checkpoint step-00000150 committed")).to_be_in_viewport()
    page.reload()
    expect(log.get_by_text("checkpoint step-00000150 committed")).to_be_in_viewport()


def test_a_line_in_a_long_log_of_short_lines_is_shown_and_nothing_is_missing_above_it(page, world):
    run_id = world.submit(recipe(name="long", only="corpus", say="ok", say_times=60_000), "long log")
    attempt = world.until_ended(run_id).detail[0].attempts[0].id
    with world.client() as client:
        named = client.logs.page(attempt, limit=1, q="30000 ok").lines[0]
    page.goto(f"/runs/{run_id}?tab=logs&line={named.offset}")
    log = page.get_by_role("region", name=re.compile("Log of"))
    expect(log.get_by_text("30000 ok", exact=True)).to_be_in_viewport()
    top = "() => Math.min(...[...document.querySelectorAll('[data-offset]')].map(row => Number(row.dataset.offset)))"
    for _ in range(3):
        earliest = page.evaluate(top)
        page.wait_for_function(
            "([box, before]) => { box.scrollTop = 0; box.dispatchEvent(new Event('scroll')); return ("
            + top
            + ")() < before }",
            arg=[log.element_handle(), earliest - 9],
        )
        numbers = [int(text.split()[0]) for text in log.locator("[data-offset]").all_inner_texts()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] < 26_000
    began = time.monotonic()
    while numbers[-1] <= 30_000:
        assert time.monotonic() - began < 240, f"still at {numbers[-1]}"
        log.evaluate("box => { box.scrollTop += 600 }")
        numbers = [int(text.split()[0]) for text in log.locator("[data-offset]").all_inner_texts()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_log_can_be_saved_whole(page, world):
    page.goto(f"/runs/{world.runs['finished']}?tab=logs&stage=pretrain")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    text = download.value.path().read_text()
    assert text.splitlines()[0] == "stage pretrain: rank 0 of 1"
    assert "checkpoint step-00000600 committed" in text


def test_markup_in_names_and_logs_is_text_everywhere(signed_in, world):
    page, _ = signed_in()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    run_id = world.submit(recipe(name="markup", only="corpus", say=MARKUP), MARKUP)
    world.until_ended(run_id)
    page.goto("/runs")
    expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
    page.get_by_role("link", name=MARKUP).click()
    expect(page.get_by_role("heading", level=1, name=MARKUP)).to_be_visible()
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_role("region", name=re.compile("Log of")).get_by_text(MARKUP, exact=True)).to_be_visible()
    page.get_by_label("Search the whole log").fill("<script>")
    expect(page.locator("mark")).to_have_text(["<script>"])
    page.get_by_role("tab", name="Recipe").click()
    expect(page.get_by_role("textbox", name="Recipe")).to_contain_text("onerror=alert(1)")
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Run, page or action").fill("onerror")
    expect(page.get_by_role("option", name=MARKUP)).to_be_visible()
    page.goto(f"/compare?runs={run_id}")
    expect(page.get_by_role("region", name="Headline figures")).to_contain_text(MARKUP)
    assert page.locator("img[src=x], script:not([src])").count() == 0
