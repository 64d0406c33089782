"""Tokens: made, shown once, revoked."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_a_token_is_shown_once_works_and_is_refused_after_it_is_revoked(page, world):
    page.goto("/tokens")
    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog", name="New token")
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_label("Name").fill("nightly")
    dialog.get_by_label("Role").select_option("viewer")
    dialog.get_by_role("button", name="Create").click()
    shown = page.get_by_role("dialog", name="Copy it now")
    secret = shown.locator("pre").first.inner_text()
    shown.get_by_role("button", name="Copy", exact=True).first.click()
    assert page.evaluate("() => navigator.clipboard.readText()") == secret

    def ask() -> int:
        return httpx.get(
            f"{world.url}/api/v1/runs", headers={"Authorization": f"Bearer {secret}"}, timeout=60.0
        ).status_code

    assert ask() == 200
    shown.get_by_role("button", name="I have it").click()
    row = page.get_by_role("row").filter(has_text="nightly")
    expect(row).to_contain_text("viewer")
    page.reload()
    expect(row).to_be_visible()
    assert secret not in page.content()
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog", name="Revoke nightly?").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    expect(row.get_by_role("button", name="Revoke")).to_have_count(0)
    assert ask() == 401


def test_a_viewer_is_told_what_it_may_not_do(open_page, world):
    page, watch = open_page()
    watch.allow(r"^403 ")
    response = httpx.post(
        f"{world.url}/api/v1/tokens",
        json={"name": "reader", "role": "viewer", "days": 1},
        headers={"Authorization": f"Bearer {world.platform.token}"},
        timeout=60.0,
    )
    page.goto(f"/runs/{world.runs['failed']}#token={response.json()['token']}")
    page.get_by_role("button", name="Retry", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Retry", exact=True).click()
    expect(page.get_by_text("forbidden")).to_be_visible()
    expect(page.get_by_label("State of the run")).to_contain_text("failed")
