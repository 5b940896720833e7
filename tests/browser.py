"""A headless Chromium for tests of pages, and what it must not say; tests are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip("no browser: install Debian's chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A page of its own in the browser that remembers complaints.

    Args:
        browser: of the fixture.
        width: of the window, in pixels.
        scheme: ``light`` or ``dark``, as the person prefers.

    Attributes:
        page: playwright's page.
        complaints: console messages of level error or warning, exceptions, and requests to other machines.
    """

    def __init__(self, browser: Any, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(30_000)
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._watch)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _watch(self, request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("file", "data", "blob") and address.hostname != "127.0.0.1":
            self.complaints.append(f"asks {request.url}")

    def is_wider_than_its_window(self) -> bool:
        """Whether the page scrolls sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    def accessibility_findings(self) -> list[str]:
        """Serious and critical findings of axe-core; the test is skipped where it is not installed."""
        self.page.evaluate(_axe_core())
        # only what is wrong, for a list of all that is right takes most of the time
        violations = self.page.evaluate("axe.run({resultTypes: ['violations']}).then((results) => results.violations)")
        return [
            f"{violation['id']}: {node['html'][:200]}"
            for violation in violations
            if violation["impact"] in SERIOUS
            for node in violation["nodes"]
        ]


def _axe_core() -> str:
    """The script: the file that AXE_CORE names, or the one that axe-playwright-python carries."""
    found = importlib.util.find_spec("axe_playwright_python")
    place = os.environ.get("AXE_CORE") or (found and found.origin and str(Path(found.origin).parent / "axe.min.js"))
    if not place:
        pytest.skip("no axe-core: install axe-playwright-python, or let AXE_CORE name axe.min.js")
    return Path(place).read_text(encoding="utf-8")
