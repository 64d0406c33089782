"""What no page may do: errors in its console, exceptions, requests that fail."""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, Page, Request, Response

LEFT_BEHIND = "net::ERR_ABORTED"
"""A stream or a look that the page itself gave up, for instance because it went to another page."""


class Watch:
    """Listens to a page from its first request."""

    def __init__(self, page: Page) -> None:
        self._faults: list[str] = []
        self._allowed: list[re.Pattern[str]] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._faults.append(f"exception: {error}"))
        page.on("requestfailed", self._on_failed)
        page.on("response", self._on_response)

    def allow(self, *patterns: str) -> None:
        """Faults that a test provokes, such as `r"^404 GET .*/runs/nothing"`."""
        self._allowed += [re.compile(pattern) for pattern in patterns]

    @property
    def faults(self) -> list[str]:
        return [fault for fault in self._faults if not any(pattern.search(fault) for pattern in self._allowed)]

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium repeats every failed request in the console; those are listened to below, with their address.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self._faults.append(f"console: {message.text}")

    def _on_failed(self, request: Request) -> None:
        if request.failure != LEFT_BEHIND:
            self._faults.append(f"{request.failure} {request.method} {request.url}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self._faults.append(f"{response.status} {response.request.method} {response.url}")
