"""Nodes of a pool: what runs on each and what speaks against it, a drain and a return."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from browser.axe import grave_violations
from browser.cluster_world import ClusterWorld
from playwright.sync_api import Locator, Page, expect

from abruzzi.contracts.node import NodeState
from abruzzi.contracts.states import Role

pytestmark = pytest.mark.browser


def row_of(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name="Nodes").get_by_role("row").filter(has=page.get_by_role("button", name=name))


def open_nodes(page: Page) -> None:
    page.goto("/pools")
    h800 = page.get_by_role("row").filter(has=page.get_by_role("link", name="h800"))
    expect(h800).to_contain_text("1 quarantined")
    h800.get_by_role("link", name="7 nodes").click()
    expect(page).to_have_url(re.compile(r"/pools/h800\?tab=nodes$"))
    expect(page.get_by_role("tab", name="Nodes")).to_have_attribute("aria-selected", "true")
    expect(row_of(page, "h800-0001")).to_be_visible()


def test_nodes_that_need_somebody_stand_first_and_say_why(cluster_page, cluster_world: ClusterWorld):
    page = cluster_page()
    open_nodes(page)
    rows = page.get_by_role("region", name="Nodes").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("Its kubelet has not renewed its lease")
    expect(rows.nth(2)).to_contain_text("quarantined")
    expect(rows.nth(2)).to_contain_text("b1 / r2")
    expect(page.get_by_role("img", name="56 GPUs: 36 used, 4 free, 7 on nodes that take nothing new, 9 not offered")).to_be_visible()  # fmt: skip
    at_work = row_of(page, "h800-0001")
    expect(at_work).to_contain_text("ranks 8–15")
    at_work.get_by_role("link", name=cluster_world.runs["training"]).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("k2, three nodes")


def test_a_row_opens_to_all_that_is_known_and_the_view_stands_in_the_address(cluster_page):
    page = cluster_page()
    open_nodes(page)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"node=h800-0004"))
    page.get_by_role("button", name="1 quarantined: only these").click()
    page.reload()
    expect(page.get_by_role("region", name="Nodes").get_by_role("row")).to_have_count(3)
    detail = page.get_by_role("region", name="Details of h800-0004")
    expect(detail).to_contain_text("GPU 3 has fallen off the bus (XID 79).")
    expect(detail).to_contain_text("abruzzi.io/quarantine:NoSchedule")
    expect(detail).to_contain_text("topology/rack r2")


def test_an_administrator_drains_a_node_watches_it_empty_and_returns_it(cluster_page, cluster_world: ClusterWorld):
    page = cluster_page()
    open_nodes(page)
    row = row_of(page, "h800-0002")
    row.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog", name="Drain h800-0002?")
    expect(dialog).to_contain_text("The attempt on it saves and goes on elsewhere")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    expect(dialog.get_by_role("button", name="Drain")).to_be_disabled()
    page.keyboard.type("fan is loud")
    expect(dialog).to_contain_text('abruzzi nodes drain h800-0002 --reason "fan is loud"')
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_text("h800-0002 is being drained")).to_be_visible()
    expect(row).to_contain_text("asked for a drain: fan is loud")

    found = next(node for node in cluster_world.nodes() if node.name == "h800-0002")
    cluster_world.look_at_nodes(
        [replace(found, state=NodeState.DRAINING, reason="Its stages save and go on elsewhere.")]
    )
    expect(row).to_contain_text("draining")
    gone = found.facts.model_copy(update={"gpus": found.facts.gpus.model_copy(update={"used": 0}), "cordoned": True})
    cluster_world.look_at_nodes([replace(found, state=NodeState.DRAINED, attempts={}, facts=gone)])
    expect(row).to_contain_text("drained")
    expect(row.get_by_role("link")).to_have_count(0)

    row.get_by_role("button", name="Return").click()
    dialog = page.get_by_role("dialog", name="Return h800-0002?")
    expect(dialog).to_contain_text("fan is loud")
    dialog.get_by_label("Reason").fill("new fan")
    dialog.get_by_role("button", name="Return").click()
    expect(page.get_by_text("h800-0002 takes part again.")).to_be_visible()
    cluster_world.look_at_nodes([found])
    expect(row).to_contain_text("ready")
    expect(row.get_by_role("button", name="Drain")).to_be_visible()
    with cluster_world.api.client() as client:
        returned = client.get("nodes/h800-0002").json()["returned"]
    assert returned["reason"] == "new fan"


def test_who_may_not_drain_is_not_offered_it(cluster_page, cluster_world: ClusterWorld):
    page = cluster_page(token=cluster_world.api.token(Role.MEMBER))
    open_nodes(page)
    expect(row_of(page, "h800-0001")).to_contain_text("ready")
    expect(page.get_by_role("button", name="Drain")).to_have_count(0)
    expect(page.get_by_role("button", name="Return")).to_have_count(0)


def test_everybody_can_use_the_nodes_and_their_dialog(cluster_page):
    page = cluster_page()
    page.goto("/pools/h800?tab=nodes&node=h800-0004")
    expect(page.get_by_role("region", name="Details of h800-0004")).to_be_visible()
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        assert grave_violations(page) == []
    row_of(page, "h800-0004").get_by_role("button", name="Return").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert grave_violations(page) == []
