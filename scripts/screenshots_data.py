"""Takes the pictures of data in docs/images: rewrites with their faults, a trajectory, the queue of what people decide about, a safety matrix, a rollout, curves of rl.

    PYTHONPATH=.:tests:tests/integration python scripts/screenshots_data.py docs/images

Half a minute. The platform and the dashboard are real; the rows are those of the browser tests.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from browser.data_recipe import data_recipe
from playwright.sync_api import Page, expect
from scripts.screenshots import WINDOW, pages, picture

from abruzzi.client import Client
from abruzzi.contracts.states import RunState
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="screenshots-") as temporary,
        EmbeddedPlatform(Path(temporary) / "home") as platform,
        Client(platform.url, platform.token, retry_seconds=60.0) as client,
        pages(platform.url, platform.token) as open_page,
    ):
        take_all(client, open_page, folder)


def take_all(client: Client, open_page: Callable[[str, dict[str, int]], Page], folder: Path) -> None:
    run = client.runs.wait(client.runs.submit(data_recipe(rows=1200, waiting=12)).id, timeout_seconds=600.0)
    if run.state is not RunState.SUCCEEDED:
        raise SystemExit(f"{run.name} ended {run.state}: {run.reason}")
    made = {artifact.name: artifact.id for artifact in client.artifacts.list(run.id)}
    page = open_page("dark", WINDOW)
    page.goto(f"/data/{made['corpus']}?tab=rewrites&fate=number")
    expect(page.get_by_role("region", name="Faults")).to_be_visible()
    picture(page, folder / "data-rewrites.png")
    page.goto(f"/data/{made['conversations']}?tab=review")
    expect(page.get_by_role("status", name="Queue")).to_contain_text("12 wait")
    expect(page.get_by_role("region", name="Conversation")).to_be_visible()
    picture(page, folder / "data-review.png")
    page.goto(f"/data/{made['redteam']}")
    expect(page.get_by_role("region", name="Safety matrix")).to_be_visible()
    page.get_by_role("button", name="Sub-plugins").click()
    picture(page, folder / "safety-matrix.png")
    page = open_page("light", WINDOW)
    page.goto(f"/data/{made['trajectories']}?tab=trajectories")
    expect(page.get_by_role("region", name="Rubric")).to_be_visible()
    page.get_by_role("button", name="Unfold calls").click()
    expect(page.get_by_role("list", name="Changes by publish_report")).to_be_visible()
    picture(page, folder / "data-trajectory.png")
    page.goto(f"/data/{made['rollouts']}?tab=rollouts")
    expect(page.get_by_role("region", name="Tokens")).to_be_visible()
    picture(page, folder / "data-rollout.png")
    page.goto(f"/runs/{run.id}")
    expect(page.get_by_role("region", name="Where the time went").get_by_title("Iteration 20")).to_be_visible()
    picture(page, folder / "rl-curves.png")


if __name__ == "__main__":
    main()
