"""Data, row by row: what there is, why rows were rejected, each row in its own form, and the queue of those that people decide about."""

from __future__ import annotations

import re

import pytest
from browser.axe import grave_violations
from browser.data_recipe import data_recipe
from browser.world import World
from playwright.sync_api import Page, expect

from abruzzi.contracts.dataset import Verdict
from abruzzi.contracts.states import RunState

pytestmark = pytest.mark.browser

ROWS = 1200


@pytest.fixture(scope="module")
def data(world: World) -> dict[str, str]:
    """{what: artifact id}, and the run's id as `run`."""
    run_id = world.submit(data_recipe(rows=ROWS, waiting=3), "rows of every sort")
    run = world.until_ended(run_id)
    assert run.state is RunState.SUCCEEDED, run.reason
    with world.client() as client:
        return {"run": run_id, **{artifact.name: artifact.id for artifact in client.artifacts.list(run_id)}}


def tab(page: Page, name: str):  # type: ignore[no-untyped-def]
    return page.get_by_role("tab", name=re.compile(f"^{name}"))


def test_the_list_says_what_is_in_each_artifact_and_opens_it_by_keyboard(page: Page, data: dict[str, str]) -> None:
    page.goto(f"/data?run={data['run']}")
    rows = page.get_by_role("region", name="Data").get_by_role("row")
    made = rows.filter(has=page.get_by_role("link", name="corpus", exact=True))
    expect(made).to_contain_text("1,200 rewrites")
    expect(made).to_contain_text("stand-in")
    expect(made).to_contain_text("kept 960, number 240")
    expect(rows.filter(has_text="conversations").first).to_contain_text("review 3")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/data/[a-z0-9]+$"))
    expect(tab(page, "Overview")).to_be_visible()


def test_a_corpus_shows_its_statistics_and_a_bar_leads_to_its_rows(page: Page, data: dict[str, str]) -> None:
    page.goto(f"/data/{data['corpus']}")
    expect(page.get_by_role("region", name="Mixture of domains")).to_contain_text("mathematics")
    expect(page.get_by_role("region", name="What became of the documents")).to_contain_text("duplicate")
    rejections = page.get_by_role("region", name="Rejections").first
    expect(rejections.get_by_role("columnheader")).to_have_text(["Reason", "own", "All"])
    expect(rejections.get_by_role("row").filter(has_text="duplicate").get_by_role("cell")).to_have_text(
        ["duplicate", "1", "1"]
    )
    rejections.get_by_role("button", name="by source").click()
    expect(rejections.get_by_role("columnheader")).to_have_text(["Reason", re.compile("texts"), "All"])
    expect(page.get_by_role("navigation", name="Lineage")).to_contain_text("corpus")
    page.get_by_role("button", name=re.compile("^number 240")).click()
    expect(tab(page, "Rewrites")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("button", name="number 240", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("region", name="Faults")).to_contain_text("26 of the source is 27 here")
    marked = page.get_by_role("table", name="Source and rewrite").locator("mark")
    expect(marked).to_have_text(["261", "271", "not found pure2", "occurs pure2"])


def test_rows_are_filtered_searched_and_walked_by_keyboard_and_the_address_keeps_the_place(
    page: Page, data: dict[str, str]
) -> None:
    page.goto(f"/data/{data['corpus']}?tab=rewrites")
    listed = page.get_by_role("list", name="Rewrites")
    expect(listed.get_by_role("listitem").first).to_be_visible()
    shown_rows = page.get_by_role("status", name="Rows shown")
    expect(shown_rows).to_have_text("100 rows of 1,200; scroll for more")
    page.get_by_role("button", name="style encyclopedia").click()
    expect(page.get_by_role("button", name="style: encyclopedia")).to_be_visible()
    expect(shown_rows).to_have_text(re.compile(r"^100 rows; \d+ of 1,200 looked at$"))
    page.keyboard.press("/")
    page.keyboard.type("element 7")
    expect(shown_rows).to_have_text("11 rows")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile("row="))
    chosen = page.get_by_role("list", name="Rewrites").locator("[aria-current=true]")
    expect(chosen).to_have_count(1)
    shown = page.get_by_role("list", name="Properties").get_by_role("button", name=re.compile("^document"))
    expect(shown).to_have_text("documentdoc-0071")
    page.reload()
    expect(shown).to_have_text("documentdoc-0071")
    page.get_by_role("searchbox").fill("nobody says this")
    expect(page.get_by_role("heading", name="No row matches")).to_be_visible()


def test_a_trajectory_shows_turns_calls_faults_the_world_and_the_verdicts(page: Page, data: dict[str, str]) -> None:
    page.goto(f"/data/{data['trajectories']}?tab=trajectories")
    rubric = page.get_by_role("region", name="Rubric")
    expect(rubric).to_contain_text("1 of 3 hold, score 0.94")
    expect(rubric).to_contain_text("report 8 is new")
    talk = page.get_by_role("region", name="Conversation")
    expect(talk).to_contain_text("lost_answer injected")
    expect(talk.get_by_role("list", name="Changes by publish_report")).to_be_hidden()
    page.keyboard.press("e")
    expect(talk.get_by_role("list", name="Changes by publish_report")).to_contain_text("draft → published")
    world = page.get_by_role("list", name="World before and after")
    expect(world).to_contain_text("report 7 changed")
    expect(world).to_contain_text("report 8 added")


def test_a_tool_shows_its_schema_for_people_and_the_map_what_the_catalogue_covers(
    page: Page, data: dict[str, str]
) -> None:
    page.goto(f"/data/{data['tools']}")
    expect(page.get_by_role("img", name="Map of 40 tools")).to_be_visible()
    expect(page.get_by_role("region", name="Coverage", exact=True)).to_contain_text("mcp-liar 0.1 (server_lied)")
    page.get_by_role("button", name=re.compile("^calculator 40")).click()
    arguments = page.get_by_role("region", name="Arguments of the tool")
    expect(arguments.get_by_role("row").filter(has_text="unit")).to_contain_text(
        "one of none, percent; by default none"
    )
    expect(arguments.get_by_role("row").filter(has_text="The first factor")).to_contain_text("at least 0")


def test_people_decide_about_what_waits_and_take_it_back(page: Page, world: World, data: dict[str, str]) -> None:
    page.goto(f"/data/{data['conversations']}")
    tab(page, "Review").click()
    queue = page.get_by_role("status", name="Queue")
    expect(queue).to_contain_text("3 wait")
    expect(page.get_by_role("region", name="Reasons")).to_contain_text("the judge was of two minds")
    page.keyboard.press("a")
    expect(queue).to_contain_text("2 wait, 1 decided just now")
    expect(page.get_by_role("region", name="Row")).to_contain_text("conversation-001")
    page.keyboard.press("r")
    expect(queue).to_contain_text("1 waits")
    page.keyboard.press("u")
    expect(queue).to_contain_text("2 wait")
    expect(page.get_by_role("region", name="Row")).to_contain_text("conversation-001")
    page.keyboard.press("r")
    page.keyboard.press("a")
    expect(queue).to_contain_text("0 wait, 3 decided just now")
    page.keyboard.press("k")

    def said() -> dict[str, str]:
        with world.client() as client:
            return {review.row_id: review.verdict.value for review in client.artifacts.reviews(data["conversations"])}

    # The page shows a verdict at once and sends them one after the other.
    world.until(lambda: len(said()) == 3, "the last verdict is stored")
    assert said() == {"conversation-000": "accept", "conversation-001": "reject", "conversation-002": "accept"}
    page.reload()
    expect(page.get_by_role("heading", name="Nothing waits for a decision")).to_be_visible()


def test_a_row_that_the_list_does_not_hold_can_be_decided_about_and_undo_brings_the_note_back(
    page: Page, world: World, data: dict[str, str]
) -> None:
    with world.client() as client:
        [kept] = client.artifacts.rows(data["trajectories"], "trajectories", fate=["kept"])
        client.artifacts.review(data["trajectories"], "trajectory-kept", Verdict.REJECT, "names a person")

    def said() -> list[tuple[str, str, str]]:
        with world.client() as client:
            found = client.artifacts.reviews(data["trajectories"])
            return [(review.row_id, review.verdict.value, review.note) for review in found]

    before = said()
    assert before == [("trajectory-kept", "reject", "names a person")]
    page.goto(f"/data/{data['trajectories']}?tab=trajectories&fate=rubric_failed&row={kept.position}")
    shown = page.get_by_role("region", name="Row")
    expect(shown).to_contain_text("rejected")
    page.get_by_role("button", name="Accept").click()
    expect(shown).to_contain_text("accepted")
    world.until(lambda: said() == [("trajectory-kept", "accept", "")], "the row is accepted")
    page.keyboard.press("u")
    world.until(lambda: said() == before, "that is undone")
    page.keyboard.press("r")
    page.keyboard.press("a")
    world.until(lambda: said() == [("trajectory-kept", "accept", "")], "the row is accepted again")
    page.keyboard.press("u")
    world.until(lambda: said() == before, "that is undone")


def test_what_roles_cost_is_told_while_they_work_and_afterwards(page: Page, data: dict[str, str]) -> None:
    page.goto(f"/data/{data['corpus']}?tab=cost")
    costs = page.get_by_role("region", name="Cost by role")
    expect(costs.get_by_role("row").filter(has_text="rephraser")).to_contain_text("1,490")
    expect(costs.get_by_role("row").filter(has_text="rephraser")).to_contain_text("stand-in")
    expect(costs.get_by_role("row").filter(has_text="judge")).not_to_contain_text("stand-in")
    page.goto(f"/runs/{data['run']}")
    expect(page.get_by_role("region", name="Cost by role so far")).to_contain_text("39.36k")


@pytest.mark.parametrize(
    ("what", "view"),
    [("corpus", ""), ("corpus", "?tab=rewrites&fate=number"), ("trajectories", "?tab=trajectories")],
)  # fmt: skip
def test_everybody_can_use_the_pages_of_data(page: Page, data: dict[str, str], what: str, view: str) -> None:
    page.goto(f"/data/{data[what]}{view}")
    ready = page.get_by_role("region", name="Row") if view else page.get_by_role("region", name="Sources").first
    expect(ready).to_be_visible()
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        assert grave_violations(page) == []


def test_a_damaged_shard_says_what_to_do(signed_in, world: World, data: dict[str, str]) -> None:
    page, watch = signed_in()
    watch.allow(r"^409 GET .*/rows")
    with world.client() as client:
        manifest = client.artifacts.manifest(data["tools"])
    digest = next(entry.digest for entry in manifest.files if entry.path == "tools.jsonl.zst").removeprefix("sha256:")
    blob = next(world.folder.glob(f"home/**/blobs/{digest}"))
    content = blob.read_bytes()
    try:
        blob.chmod(0o600)
        blob.write_bytes(content[:-9])
        page.goto(f"/data/{data['tools']}?tab=tools")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("tools.jsonl.zst has another size than its manifest says")
        expect(alert).to_contain_text("abruzzi runs retry")
    finally:
        blob.write_bytes(content)


def test_a_rollout_shows_which_policy_drew_which_tokens_and_what_its_reward_is_made_of(
    page: Page, data: dict[str, str]
) -> None:
    page.goto(f"/data/{data['rollouts']}?tab=rollouts")
    listed = page.get_by_role("list", name="Rollouts")
    first = listed.get_by_role("listitem").first
    expect(first).to_contain_text("3 + 4 =")
    expect(first).to_contain_text("iteration 1 · addition · 19 tokens · 2 policies")
    expect(page.get_by_role("list", name="Policies")).to_have_text("policy 0policy 1")
    tokens = page.get_by_role("region", name="Tokens")
    expect(tokens.locator("[data-version='0']")).to_have_text('functions.add:0{"a":3,')
    expect(tokens.locator("[data-version='1']")).to_have_count(2)
    reward = page.get_by_role("region", name="Reward")
    expect(reward).to_contain_text("Reward 1.00")
    expect(reward).to_contain_text("correct1.00")
    expect(page.get_by_role("region", name="Conversation")).to_contain_text("add")
    assert grave_violations(page) == []
    page.get_by_role("button", name="group g0000000").click()
    expect(page.get_by_role("status", name="Rows shown")).to_have_text(re.compile("^4 rows"))
    page.goto(f"/data/{data['rollouts']}?tab=rollouts&fate=budget")
    expect(reward).to_contain_text("budget penalty-1.50")


def test_a_run_shows_where_the_time_of_its_iterations_went_beside_the_reward(page: Page, data: dict[str, str]) -> None:
    page.goto(f"/runs/{data['run']}")
    timeline = page.get_by_role("region", name="Where the time went")
    expect(timeline.get_by_role("table")).to_contain_text("environment")
    expect(timeline.get_by_title(re.compile("^Iteration 20: infer 2"))).to_be_visible()
    expect(page.get_by_role("region", name="Reward", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="time/infer")).to_have_count(0)
    assert grave_violations(page) == []


def test_a_run_shows_what_its_critic_is_worth_and_when_its_rewards_were_given(page: Page, data: dict[str, str]) -> None:
    page.goto(f"/runs/{data['run']}")
    tab(page, "Critic").click()
    rewards = page.get_by_role("region", name="Rubric rewards", exact=True)
    expect(rewards).to_contain_text("Given since iteration 9.")
    spells = rewards.get_by_role("list", name="Frozen and given").get_by_role("listitem")
    expect(spells).to_have_text(["Frozen, iterations 1 to 8", "Given, iterations 9 to 20"])
    worth = page.get_by_role("list", name="What the critic is worth")
    expect(worth.get_by_role("listitem").filter(has_text="Accuracy")).to_contain_text("90.0 %")
    expect(worth.get_by_role("listitem").filter(has_text="Cycles")).to_contain_text("12.5 %")
    expect(page.get_by_role("region", name="What the critic is worth")).to_be_visible()
    assert grave_violations(page) == []
    rewards.get_by_role("link", name="rubrics general").click()
    expect(page.get_by_role("region", name="Rubrics")).to_contain_text("clarity and relevance")
