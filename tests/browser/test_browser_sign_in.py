"""How a person gets in, and what an address leads to."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_the_address_of_abruzzi_up_signs_in_and_leaves_no_token_behind(open_page, world):
    page, _ = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/#token={world.platform.token}")
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(page).to_have_url(f"{world.url}/runs")
    assert not any(world.platform.token in url for url in asked)
    assert world.platform.token not in page.evaluate("() => document.cookie + JSON.stringify({...localStorage})")
    page.reload()
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()


def test_a_deep_address_asks_for_a_token_in_place_and_goes_on_there(open_page, world):
    page, watch = open_page()
    watch.allow(r"^401 GET .*/api/v1/session$", r"^401 POST .*/api/v1/session$")
    page.goto(f"/runs/{world.runs['finished']}?tab=recipe")
    page.get_by_label("Token").fill("abruzzi_nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("oken")
    page.get_by_label("Token").fill(world.platform.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("tab", name="Recipe")).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile(rf"/runs/{world.runs['finished']}\?tab=recipe$"))


def test_a_refused_token_in_the_address_says_so(open_page):
    page, watch = open_page()
    watch.allow(r"^401 GET .*/api/v1/session$", r"^401 POST .*/api/v1/session$")
    page.goto("/#token=abruzzi_stale")
    expect(page.get_by_role("alert")).to_contain_text("unauthenticated")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert "token" not in page.url


def test_signing_out_ends_the_session(signed_in):
    page, watch = signed_in()
    watch.allow(r"^401 GET .*/api/v1/")
    page.goto("/runs")
    page.get_by_role("button", name=re.compile("Signed in as")).click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.goto("/runs")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_an_address_that_is_no_page_says_so_and_shows_the_way(page):
    page.goto("/no/such/page")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()


def test_a_run_that_is_not_there_says_so(signed_in):
    page, watch = signed_in()
    watch.allow(r"^404 GET .*/api/v1/runs/zzzzzzzzzz")
    page.goto("/runs/zzzzzzzzzz")
    expect(page.get_by_role("alert")).to_contain_text("zzzzzzzzzz")
