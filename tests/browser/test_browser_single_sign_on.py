"""Sign-in by an identity provider, through its own page and back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest
from api_server import ApiServer, serve
from browser.cluster_world import BUILT
from identity_provider import provide
from playwright.sync_api import Browser, Page, expect

from abruzzi.migrations import upgrade

pytestmark = pytest.mark.browser
DATABASE = "single_sign_on"


@pytest.fixture(scope="module")
def platform(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with psycopg.connect(postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER abruzzi_owner")
    upgrade(postgres.dsn("abruzzi_owner", DATABASE))
    app, owner = (postgres.dsn(role, DATABASE) for role in ("abruzzi_app", "postgres"))
    folder = tmp_path_factory.mktemp("single-sign-on")
    with provide() as provider, serve(app, owner, folder, ABRUZZI_WEB_DIR=str(BUILT), **provider.settings()) as made:
        yield made


@pytest.fixture
def stranger(chromium: Browser, platform: ApiServer) -> Iterator[Page]:
    context = chromium.new_context(base_url=platform.url, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def test_a_deep_address_leads_through_the_provider_and_back_to_it(stranger: Page, platform: ApiServer) -> None:
    stranger.goto("/tokens")
    stranger.get_by_role("link", name="Sign in with Example ID").click()
    stranger.get_by_role("button", name=re.compile("ada")).click()
    expect(stranger).to_have_url(f"{platform.url}/tokens")
    expect(stranger.get_by_role("heading", name="Tokens")).to_be_visible()
    stranger.get_by_role("button", name=re.compile("Signed in as")).click()
    expect(stranger.get_by_text("ada@example.org").first).to_be_visible()


def test_who_is_in_no_group_is_told_so_where_one_signs_in(stranger: Page) -> None:
    stranger.goto("/")
    stranger.get_by_role("link", name="Sign in with Example ID").click()
    stranger.get_by_role("button", name=re.compile("eve")).click()
    expect(stranger.get_by_role("alert")).to_contain_text("none of your groups gives access")
    assert "#" not in stranger.url


def test_an_address_cannot_put_words_on_the_page(stranger: Page) -> None:
    stranger.goto("/#problem=call+0800+123")
    expect(stranger.get_by_role("link", name="Sign in with Example ID")).to_be_visible()
    expect(stranger.get_by_text("0800")).to_have_count(0)
    expect(stranger.get_by_role("alert")).to_have_count(0)
