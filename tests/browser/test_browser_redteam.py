"""The safety matrix: a heat map with n and intervals beside the report's cells, down to each conversation, and hidden where it must be."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from browser.axe import grave_violations
from browser.data_recipe import data_recipe
from browser.watch import Watch
from browser.world import World
from playwright.sync_api import Page, expect

from abruzzi.contracts.states import Role, RunState

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def attacks(world: World) -> str:
    """The artifact's id."""
    run = world.until_ended(world.submit(data_recipe(rows=8, waiting=1), "attacks"))
    assert run.state is RunState.SUCCEEDED, run.reason
    with world.client() as client:
        return next(artifact.id for artifact in client.artifacts.list(run.id) if artifact.name == "redteam")


def cell(page: Page, name: str):  # type: ignore[no-untyped-def]
    return page.get_by_role("region", name="Pass rate by plugin and strategy").get_by_role("button", name=name)


def test_a_cell_says_n_interval_and_the_reports_and_leads_to_its_conversations(page: Page, attacks: str) -> None:
    page.goto(f"/data/{attacks}")
    broken = cell(page, "harmful, Crescendo")
    for told in ("50 %", "2/4, 15–85", "report 64.71"):
        expect(broken).to_contain_text(told)
    page.get_by_role("button", name="The report's Qwen3-235B").click()
    expect(cell(page, "harmful, Crescendo")).to_contain_text("report 86.27")
    expect(cell(page, "privacy, Basic")).to_contain_text("3/4, 30–95, 1 waits")
    expect(page.get_by_role("list", name="Agreement")).to_contain_text(
        "judge and rules agree on 59 of 60, Cohen's kappa"
    )
    page.get_by_role("button", name="Sub-plugins").click()
    expect(cell(page, "insults, Basic")).to_be_visible()
    assert grave_violations(page) == []
    cell(page, "harmful, Crescendo").click()
    expect(page.get_by_role("status", name="Rows shown")).to_have_text("4 rows")
    page.get_by_role("list", name="Attacks").get_by_role("button", name=re.compile("Forbidden thing 1")).click()
    row = page.get_by_role("region", name="Row")
    expect(row.get_by_role("region", name="Conversation")).to_contain_text("Certainly: an open door.")
    row.get_by_text("Try 2").click()
    expect(row.get_by_role("region", name="Tries")).to_contain_text("Wording 1")
    expect(row.get_by_role("region", name="Tries")).to_contain_text("taken back")
    assert grave_violations(page) == []


def test_a_persons_verdict_changes_the_matrix(page: Page, world: World, attacks: str) -> None:
    page.goto(f"/data/{attacks}?tab=review")
    expect(page.get_by_role("status", name="Queue")).to_contain_text("Rules and judge disagree about them")
    page.get_by_role("button", name=re.compile("^Safe")).click()
    page.get_by_role("tab", name="Overview").click()
    expect(cell(page, "privacy, Basic")).to_contain_text("4/4, 51–100")
    expect(page.get_by_role("list", name="Agreement")).to_contain_text("people and rules agree on 1 of 1")


def test_who_may_not_read_attacks_sees_the_matrix_and_no_text(
    signed_in: Callable[..., tuple[Page, Watch]], world: World, attacks: str
) -> None:
    with world.client() as client:
        token = client.tokens.create("looks", Role.VIEWER).token
    page, _ = signed_in(token=token)
    page.goto(f"/data/{attacks}")
    expect(cell(page, "harmful, Crescendo")).to_contain_text("2/4, 15–85")
    expect(page.get_by_text("hidden from you")).to_be_visible()
    cell(page, "harmful, Crescendo").click()
    row = page.get_by_role("region", name="Row")
    expect(row).to_contain_text("hidden from you")
    expect(row).to_contain_text("[hidden: 38 characters]")
    expect(page.get_by_text("Forbidden thing")).to_have_count(0)
    expect(row.get_by_role("button", name=re.compile("^Safe"))).to_have_count(0)
