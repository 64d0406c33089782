"""One platform and one Chromium for all browser tests, gone as soon as the last of them is over."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser.axe import SOURCE as AXE
from browser.cluster_world import ClusterWorld
from browser.watch import Watch
from browser.world import World, populate
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from abruzzi_operators.supervisor.embedded import EmbeddedPlatform
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "web" / "dist" / "index.html"
CHROMIUM_BIN = HERE.parents[1] / "scripts" / "chromium-bin"
PATIENCE_MILLISECONDS = 90_000
WINDOW = {"width": 1440, "height": 900}

expect.set_options(timeout=PATIENCE_MILLISECONDS)
_open = ExitStack()
_pages: list[Page] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Not a session fixture's teardown: tests that measure time or run event loops may follow in the same session."""
    yield
    if nextitem is None or HERE not in nextitem.path.parents:
        _open.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """What a failed test saw belongs to its message."""
    report = yield
    if report.when == "call" and report.failed:
        for number, page in enumerate(_pages):
            picture = Path(item.funcargs["tmp_path_factory"].getbasetemp()) / f"{item.name}-{number}.png"
            page.screenshot(path=picture)
            report.sections.append(
                (f"page {number}", f"{page.url}\n{picture}\n{page.locator('body').inner_text()[:3000]}")
            )
    return report


@pytest.fixture(scope="session")
def chromium() -> Browser:
    found = subprocess.run([str(CHROMIUM_BIN)], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(
            "no Chromium that starts: install the package chromium (Ubuntu, which has it as a snap only: Google Chrome)"
        )
    for path in (BUILT, AXE):
        if not path.exists():
            pytest.skip(f"{path.relative_to(HERE.parents[1])} is missing: run `make web`")
    playwright = _open.enter_context(sync_playwright())
    return playwright.chromium.launch(
        executable_path=found.stdout.strip(),
        # As root in a container there are neither user namespaces for the sandbox nor room in /dev/shm.
        args=["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
    )


@pytest.fixture(scope="session")
def world(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("browser")
    world = World(_open.enter_context(EmbeddedPlatform(folder / "home")), folder)
    populate(world)
    return world


@pytest.fixture(scope="session")
def cluster_world(
    chromium: Browser, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> ClusterWorld:
    """A platform with pools of a cluster, beside the other one; started only for tests that ask for it."""
    return _open.enter_context(ClusterWorld.start(postgres, tmp_path_factory.mktemp("cluster-world")))


@pytest.fixture
def open_page(
    chromium: Browser, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tuple[Page, Watch]]]:
    """Pages with a browser profile of their own; whatever they did wrong fails the test at its end."""
    watches: list[Watch] = []
    with ExitStack() as opened:

        def make(*, theme: str = "dark") -> tuple[Page, Watch]:
            context = opened.enter_context(_profile(chromium, world.url, theme))
            page = context.new_page()
            watch = Watch(page)
            watches.append(watch)
            _pages.append(page)
            return page, watch

        yield make
        _pages.clear()
    faults = [fault for watch in watches for fault in watch.faults]
    assert faults == []


@pytest.fixture
def signed_in(open_page: Callable[..., tuple[Page, Watch]], world: World) -> Callable[..., tuple[Page, Watch]]:
    """As `open_page`, with a session; test_browser_sign_in.py gets in through the page."""

    def make(*, theme: str = "dark", token: str | None = None) -> tuple[Page, Watch]:
        page, watch = open_page(theme=theme)
        _sign_in(page.context, token or world.platform.token)
        return page, watch

    return make


@pytest.fixture(scope="session")
def shared_profile(chromium: Browser, world: World) -> BrowserContext:
    """Signed in, with a warm cache."""
    context = _open.enter_context(_profile(chromium, world.url))
    _sign_in(context, world.platform.token)
    return context


@pytest.fixture
def page(shared_profile: BrowserContext) -> Iterator[Page]:
    """With a session, on no page yet. For tests that leave nothing behind in the browser; the others take `signed_in`."""
    page = shared_profile.new_page()
    watch = Watch(page)
    _pages.append(page)
    yield page
    _pages.clear()
    page.close()
    assert watch.faults == []


@pytest.fixture
def cluster_page(chromium: Browser, cluster_world: ClusterWorld) -> Iterator[Callable[..., Page]]:
    """Pages of the platform with pools, signed in as its admin or as `token` says."""
    watches: list[Watch] = []
    with ExitStack() as opened:

        def make(*, theme: str = "dark", token: str | None = None, allow: Sequence[str] = ()) -> Page:
            context = opened.enter_context(_profile(chromium, cluster_world.url, theme))
            _sign_in(context, token or cluster_world.admin)
            page = context.new_page()
            watch = Watch(page)
            watch.allow(*allow)
            watches.append(watch)
            _pages.append(page)
            return page

        yield make
        _pages.clear()
    assert [fault for watch in watches for fault in watch.faults] == []


def _profile(chromium: Browser, url: str, theme: str = "dark") -> BrowserContext:
    context = chromium.new_context(
        base_url=url,
        viewport=WINDOW,
        color_scheme=theme,
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    return context


def _sign_in(context: BrowserContext, token: str) -> None:
    context.request.post("/api/v1/session", data={"token": token}, headers={"X-Abruzzi-Request": "1"})
