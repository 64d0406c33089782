"""Browsers allow six connections a host: pages share them, and what nobody sees holds none."""

from __future__ import annotations

import pytest
from browser.stand_in_recipe import recipe
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

COUNT = """
  const Real = window.EventSource;
  window.streams = new Set();
  window.everOpened = 0;
  window.EventSource = class extends Real {
    constructor(...given) { super(...given); window.streams.add(this); window.everOpened += 1; }
    close() { window.streams.delete(this); super.close(); }
  };
"""
HIDE = """
  window.isHidden = %s;
  Object.defineProperty(Document.prototype, "visibilityState", { get: () => (window.isHidden ? "hidden" : "visible") });
  window.show = (shown) => { window.isHidden = !shown; document.dispatchEvent(new Event("visibilitychange")); };
"""


def open_streams(pages: list[Page]) -> int:
    return sum(page.evaluate("() => window.streams.size") for page in pages)


def test_eight_pages_at_once_all_follow_their_run_and_leave_room_for_questions(signed_in, world):
    go_on = world.folder / "eight"
    run_id = world.submit(
        recipe(name="eight", only="pretrain", steps=100, pause=0.02, hold_at=49, hold_file=go_on), "eight"
    )
    first, watch = signed_in()
    watch.allow(r"^net::ERR_")
    first.context.add_init_script(COUNT)
    pages = [first, *(first.context.new_page() for _ in range(7))]
    for page in pages:
        page.goto(f"/runs/{run_id}", wait_until="domcontentloaded")
    for page in pages:
        expect(page.get_by_label("State of the run")).to_contain_text("running")
    world.until(lambda: open_streams(pages) <= 6, "no more streams than connections")
    took = first.evaluate(
        "async () => { const t = performance.now(); await fetch('/api/v1/session'); return performance.now() - t }"
    )
    assert took < 60_000, "where streams hold all connections it never comes"
    go_on.touch()
    for page in pages:
        expect(page.get_by_label("State of the run")).to_contain_text("succeeded", timeout=240_000)


def test_a_page_in_the_background_holds_no_stream_until_it_is_seen(signed_in, world):
    page, _ = signed_in()
    page.add_init_script(COUNT + HIDE % "true")
    page.goto(f"/runs/{world.runs['live']}")
    expect(page.get_by_label("State of the run")).to_contain_text("running")
    assert page.evaluate("() => window.everOpened") == 0
    page.evaluate("() => window.show(true)")
    page.wait_for_function("() => window.streams.size === 1")


def test_a_page_that_was_left_lets_go_of_its_stream_after_a_while(signed_in, world):
    page, _ = signed_in()
    page.add_init_script(COUNT + HIDE % "false")
    page.clock.install()
    page.goto(f"/runs/{world.runs['live']}")
    page.wait_for_function("() => window.streams.size === 1")
    page.evaluate("() => window.show(false)")
    page.clock.run_for(20_000)
    assert page.evaluate("() => window.streams.size") == 1
    page.clock.run_for(20_000)
    assert page.evaluate("() => window.streams.size") == 0
    page.evaluate("() => window.show(true)")
    page.wait_for_function("() => window.streams.size === 1")
