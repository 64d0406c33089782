"""The page of a run: its stages, its curves while they grow, what it made, its recipe."""

from __future__ import annotations

import re

import pytest
from browser.stand_in_recipe import recipe
from playwright.sync_api import Locator, Page, expect
from typer.testing import CliRunner

from abruzzi.cli.main import app

pytestmark = pytest.mark.browser

PEAK_LR, LAST_LR = "0.002", "0.00023"
"""Of stand_in_stage.py: in the middle and at the end of 200 steps."""


def panel(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def numbers(page: Page, title: str, line: str | re.Pattern[str]) -> Locator:
    """Last, lowest and highest value of a line, from the table that stands beside each chart."""
    return panel(page, title).get_by_role("row", name=line).get_by_role("cell")


def test_stages_stand_as_a_graph_and_choosing_one_shows_its_facts(page, world):
    page.goto(f"/runs/{world.runs['failed']}")
    graph = page.get_by_role("group", name="Stages")
    for stage, state in (
        ("corpus", "succeeded"),
        ("tokenize", "failed"),
        ("pretrain", "skipped"),
        ("evaluate", "skipped"),
    ):
        expect(graph.get_by_role("button", name=re.compile(rf"^Stage {stage} {state}\b.*container"))).to_be_visible()
    expect(graph.get_by_role("button", name=re.compile("Stage tokenize"))).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("region", name="Stage tokenize")).to_contain_text("failed")
    graph.get_by_role("button", name=re.compile("Stage evaluate")).click()
    expect(page.get_by_role("region", name="Stage evaluate")).to_contain_text("gate pretrain.loss <= 4.5")
    expect(page).to_have_url(re.compile(r"stage=evaluate"))
    page.keyboard.press("[")
    expect(page.get_by_role("region", name="Stage pretrain")).to_be_visible()
    page.reload()
    expect(page.get_by_role("region", name="Stage pretrain")).to_be_visible()


def test_the_page_says_why_a_run_is_where_it_is_and_attempts_say_how_it_ended(page, world):
    page.goto(f"/runs/{world.runs['failed']}")
    expect(page.get_by_text("Stage 'tokenize' failed (user_error, exit code 64)").first).to_be_visible()
    page.keyboard.press("5")
    row = page.get_by_role("region", name="Attempts").get_by_role("row").filter(has_text="tokenize")
    expect(row).to_contain_text("64")
    expect(row).to_contain_text("user error")
    row.get_by_role("link", name="Log").click()
    log = page.get_by_role("region", name=re.compile("Log of"))
    expect(log.get_by_text("Name the field in stage.data.text_field.")).to_be_visible()


def test_a_failed_run_shows_the_end_of_its_log_and_the_ways_on(page, world):
    page.goto(f"/runs/{world.runs['failed']}")
    panel = page.get_by_role("region", name="Why it failed")
    expect(panel).to_contain_text(
        "correct the code and retry from this stage, or correct the recipe and submit it anew"
    )
    expect(panel.get_by_role("list", name="End of the log of tokenize")).to_contain_text("line 17: 'text' is missing")
    panel.get_by_role("button", name="Retry from tokenize").click()
    dialog = page.get_by_role("dialog", name="Retry from tokenize?")
    expect(dialog).to_contain_text("corpus is kept as it is")
    page.keyboard.press("Escape")
    panel.get_by_role("link", name="Whole log").click()
    expect(page.get_by_role("tab", name="Log")).to_have_attribute("aria-selected", "true")
    panel.get_by_role("link", name="Correct the recipe").click()
    expect(page.get_by_label("Recipe in TOML")).to_contain_text('name = "tiny-k2"')


def test_of_several_ranks_the_log_of_the_one_that_failed_is_shown(page, world, monkeypatch):
    two = recipe(name="second", only="pretrain", ranks=2, steps=10, fail="pretrain", fail_rank=1)
    run = world.until_ended(world.submit(two, "rank 1 fails"))
    assert run.detail[0].attempts[-1].failed_rank == 1
    page.goto(f"/runs/{run.id}")
    panel = page.get_by_role("region", name="Why it failed")
    expect(panel.get_by_role("list", name="End of the log of pretrain, rank 1")).to_contain_text("'text' is missing")
    panel.get_by_role("link", name="Whole log").click()
    expect(page.get_by_role("region", name=f"Log of {run.detail[0].attempts[-1].id}, rank 1")).to_be_visible()
    page.get_by_label("Rank", exact=True).select_option("rank 0")
    expect(page.get_by_role("region", name=f"Log of {run.detail[0].attempts[-1].id}, rank 0")).to_be_visible()
    monkeypatch.setenv("ABRUZZI_URL", world.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", world.platform.token)
    failed, first = (CliRunner().invoke(app, ["logs", run.id, *words]) for words in ((), ("--rank", "0")))
    assert "'text' is missing" in failed.stdout
    assert "Of rank 1, which failed" in failed.stderr
    assert ("'text' is missing" in first.stdout, first.stderr) == (False, "")


def test_of_a_stage_that_was_left_out_the_page_says_why_and_leads_to_the_one_that_failed(page, world):
    for tab in ("curves", "logs"):
        page.goto(f"/runs/{world.runs['failed']}?stage=evaluate&tab={tab}")
        expect(page.get_by_role("heading", name="evaluate was not started")).to_be_visible()
        page.get_by_role("link", name="Go to tokenize").click()
        expect(page.get_by_role("region", name="Stage tokenize")).to_contain_text("failed")


def test_charts_say_their_units(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    expect(panel(page, "Loss").locator("header")).to_contain_text("nats a token")


def test_curves_grow_while_the_run_goes_on_without_a_reload(page, world):
    go_on = world.folder / "grow"
    run_id = world.submit(
        recipe(name="growing", only="pretrain", steps=200, pause=0.02, hold_at=99, hold_file=go_on), "growing"
    )
    page.goto(f"/runs/{run_id}")
    page.evaluate("() => { window.isTheSamePage = true }")
    rate = numbers(page, "Learning rate", "train/lr").first
    expect(rate).to_have_text(PEAK_LR)
    loss = numbers(page, "Loss", "train/loss").first.inner_text()
    expect(page.get_by_role("region", name="Stage pretrain")).to_contain_text("step 100 / 200")
    expect(panel(page, "Max attention logit").get_by_role("listitem").filter(has_text="layer 3")).to_be_visible()
    go_on.touch()
    expect(rate).to_have_text(LAST_LR)
    expect(numbers(page, "Loss", "train/loss").first).not_to_have_text(loss)
    expect(page.get_by_label("State of the run")).to_contain_text("succeeded")
    assert page.evaluate("() => window.isTheSamePage")


def test_smoothing_log_scale_and_axis_stand_in_the_address_and_survive_a_reload(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    raw = numbers(page, "Gradient norm", "train/grad_norm").first
    expect(raw).to_have_text(re.compile(r"^0\.\d+"))
    before = raw.inner_text()
    page.get_by_label("Smoothing", exact=True).fill("0.9")
    expect(page).to_have_url(re.compile(r"smooth=0\.9"))
    expect(raw).not_to_have_text(before)
    smoothed = raw.inner_text()
    page.get_by_role("button", name="Log scale of the vertical axes").click()
    page.get_by_role("radio", name="Tokens").click()
    expect(page).to_have_url(re.compile(r"log=true"))
    page.reload()
    expect(page.get_by_label("Smoothing", exact=True)).to_have_value("0.9")
    expect(page.get_by_role("button", name="Log scale of the vertical axes")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("radio", name="Tokens")).to_be_checked()
    expect(raw).to_have_text(smoothed)


def test_a_panel_may_differ_from_the_page(page, world):
    page.goto(f"/runs/{world.runs['finished']}?smooth=0.5")
    loss = panel(page, "Loss")
    loss.hover()
    loss.get_by_role("button", name="Settings of Loss").click()
    page.get_by_role("dialog", name="Settings of Loss").get_by_role("radio", name="Log", exact=True).click()
    expect(page).to_have_url(re.compile(r"panels=loss"))
    page.keyboard.press("Escape")
    loss.get_by_role("button", name="Make Loss large").click()
    expect(loss.get_by_role("button", name="Make Loss small")).to_be_visible()
    expect(page).to_have_url(re.compile(r"large(=|%3D)1"))
    page.reload()
    loss.hover()
    width = (loss.bounding_box() or {})["width"]
    assert width > 2 * (panel(page, "Learning rate").bounding_box() or {})["width"]
    loss.get_by_role("button", name="Make Loss small").click()
    expect(page).not_to_have_url(re.compile(r"large"))


def test_values_under_the_pointer_stand_in_the_legend_of_every_chart(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    legend = panel(page, "Max attention logit").get_by_role("listitem")
    expect(legend).to_have_count(4)
    newest = legend.all_text_contents()
    chart = panel(page, "Loss").get_by_role("img")
    width = (chart.bounding_box() or {})["width"]
    chart.hover(position={"x": 0.3 * width, "y": 80})  # once it stands where it stays
    expect(legend.last).not_to_have_text(newest[-1])
    page.mouse.move(0, 0)
    expect(legend.last).to_have_text(newest[-1])


def test_outliers_may_be_left_out_of_the_picture(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    toggle = page.get_by_role("button", name="Ignore outliers")
    toggle.click()
    expect(page).to_have_url(re.compile("robust=true"))
    page.reload()
    expect(toggle).to_have_attribute("aria-pressed", "true")


def test_dragging_over_a_chart_zooms_all_of_them_until_the_zoom_is_taken_away(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    chart = panel(page, "Loss").get_by_role("img")
    chart.hover()  # waits until it stands where it stays
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 80, steps=8)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"zoom=\d"))
    page.reload()
    page.get_by_role("button", name="Show everything").click()
    expect(page).not_to_have_url(re.compile(r"zoom="))


def test_what_a_run_made_is_listed_with_lineage_files_and_digests(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    page.get_by_role("tab", name="Artifacts").click()
    artifacts = page.get_by_role("region", name="Artifacts")
    expect(artifacts.get_by_role("row")).to_have_count(1 + 4 + 1)
    expect(artifacts.get_by_role("row").nth(1)).to_contain_text("report")
    expect(artifacts.get_by_role("row").nth(2)).to_contain_text("step-00000600")
    lineage = page.get_by_role("navigation", name="Lineage")
    expect(lineage).to_contain_text("What report was made from")
    expect(lineage.get_by_role("link")).to_have_count(2)
    lineage.get_by_role("link", name="step-00000600").click()
    expect(page).to_have_url(re.compile("artifact="))
    expect(lineage).to_contain_text("step-00000600 was made from nothing that is recorded")
    artifacts.get_by_role("button", name="Files of step-00000600").click()
    files = page.get_by_role("dialog", name="step-00000600")
    expect(files.get_by_role("link", name="model.safetensors")).to_be_visible()
    with page.expect_download() as download:
        files.get_by_role("link", name="state.json").click()
    assert download.value.path().read_text() == '{"step": 600}'


def test_the_report_shows_held_out_figures_and_sample_text(page, world):
    page.goto(f"/runs/{world.runs['finished']}?tab=report")
    expect(page.get_by_role("region", name="Bits per byte by domain")).to_contain_text("knowledge")
    expect(page.get_by_text("In the beginning ")).to_be_visible()
    expect(page.get_by_text("41.5 %")).to_be_visible()


def test_the_recipe_is_shown_as_it_was_submitted_and_begins_a_new_run(page, world):
    page.goto(f"/runs/{world.runs['finished']}?tab=recipe")
    expect(page.get_by_role("textbox", name="Recipe")).to_contain_text('name = "tiny-k2"')
    page.get_by_role("button", name="Copy the recipe").click()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == world.run(world.runs["finished"]).recipe_toml
    page.get_by_role("link", name="New run from it").click()
    expect(page.get_by_label("Recipe in TOML")).to_contain_text('name = "tiny-k2"')


def test_a_run_can_be_copied_as_commands_without_the_token(page, world):
    page.goto(f"/runs/{world.runs['finished']}")
    page.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Copy as CLI, curl, Python").click()
    dialog = page.get_by_role("dialog", name="Copy as")
    expect(dialog).to_contain_text(f"abruzzi runs show {world.runs['finished']}")
    dialog.get_by_role("radio", name="curl").click()
    expect(dialog).to_contain_text(f"{world.url}/api/v1/runs/{world.runs['finished']}")
    expect(dialog).not_to_contain_text(world.platform.token)
