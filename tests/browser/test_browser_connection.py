"""The API is killed under an open page: it says so, waits, and goes on with what it missed."""

from __future__ import annotations

import os
import signal

import pytest
from browser.stand_in_recipe import recipe
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PROVOKED = (r"^net::ERR_", r"^50[234] ", r"^exception: .*fetch")


def test_a_killed_api_is_told_and_the_page_goes_on_by_itself_when_it_is_back(signed_in, world):
    page, watch = signed_in()
    watch.allow(*PROVOKED)
    go_on = world.folder / "reconnect"
    run_id = world.submit(
        recipe(name="outlives", only="pretrain", steps=100, pause=0.02, hold_at=49, hold_file=go_on), "outlives"
    )
    world.until(lambda: world.is_training(run_id, 50), "the run is held at step 50")
    page.goto(f"/runs/{run_id}")
    rate = page.get_by_role("region", name="Learning rate").get_by_role("row", name="train/lr").get_by_role("cell")
    expect(rate.first).to_have_text("0.002")
    page.evaluate("() => { window.isTheSamePage = true }")
    world.kill_api()
    expect(page.get_by_text("Connection lost.")).to_be_visible()
    go_on.touch()
    expect(page.get_by_text("Connected again after")).to_be_visible()
    expect(page.get_by_text("Connection lost.")).to_be_hidden()
    expect(rate.first).to_have_text("0.00026")
    expect(page.get_by_label("State of the run")).to_contain_text("succeeded")
    assert page.evaluate("() => window.isTheSamePage")


def test_an_api_that_is_there_but_silent_is_told_and_what_was_known_stays_in_sight(signed_in, world):
    page, watch = signed_in()
    watch.allow(*PROVOKED)
    page.goto(f"/runs/{world.runs['live']}")
    loss = page.get_by_role("region", name="Loss", exact=True)
    expect(loss.get_by_role("img")).to_be_visible()
    api = world.platform.children["api"]
    os.kill(api, signal.SIGSTOP)
    try:
        expect(page.get_by_text("Connection lost.")).to_be_visible(timeout=120_000)
        expect(loss.get_by_role("img")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
    finally:
        os.kill(api, signal.SIGCONT)
    expect(page.get_by_text("Connected again after")).to_be_visible()
    expect(page.get_by_text("Connection lost.")).to_be_hidden()


@pytest.mark.parametrize(
    ("tab", "sight"), [("artifacts", "step-00000600"), ("report", "knowledge"), ("curves", "Gradient norm")]
)
def test_an_outage_leaves_what_was_loaded_in_its_place(signed_in, world, tab, sight):
    page, watch = signed_in()
    watch.allow(*PROVOKED)
    page.goto(f"/runs/{world.runs['finished']}?tab={tab}")
    expect(page.get_by_text(sight).first).to_be_visible()
    page.route("**/api/v1/**", lambda route: route.fulfill(status=503, json={}))
    # Looks again, as a tab that is shown, once what is there is no longer fresh.
    page.wait_for_function(
        "() => { document.dispatchEvent(new Event('visibilitychange', { bubbles: true })); return document.body.innerText.includes('Not renewed:') }",
        polling=500,
        timeout=120_000,
    )
    expect(page.get_by_text(sight).first).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_list_comes_back_too(signed_in, world):
    page, watch = signed_in()
    watch.allow(*PROVOKED)
    page.goto("/runs")
    expect(page.get_by_role("table", name="Runs")).to_be_visible()
    world.kill_api()
    expect(page.get_by_text("Connection lost.")).to_be_visible()
    expect(page.get_by_text("Connection lost.")).to_be_hidden()
    world.until(world.api_answers, "the API answers")
    run_id = world.submit(recipe(name="afterwards", only="corpus"), "afterwards")
    expect(page.get_by_role("link", name="afterwards")).to_be_visible()
    world.until_ended(run_id)
