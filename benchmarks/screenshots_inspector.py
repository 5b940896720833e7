"""Pictures of the inspector's page for README and docs, taken from a real run in a headless Chromium.

    python benchmarks/screenshots_inspector.py --run RUN

Needs playwright and a chromium (Debian's will do). Every number in the pictures is the run's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from spanelectra.inspection.opening import open_for_inspection
from spanelectra.inspection.page import make_page_server

ROOT = Path(__file__).parent.parent
SENTENCE = "He was born in the city of London and died at the age of seventy in the United States."
MASKED_WORDS = (3, 4, 10, 11)
EDITED_WORD, EDIT = 17, "be"
LARGEST_BYTES = 300_000


@contextmanager
def inspector(run: Path) -> Iterator[str]:
    """The inspector's page of a run, on a free port."""
    # the name alone: where the run lies is of no interest
    inspected = dataclasses.replace(open_for_inspection(run), source=run.name)
    server = make_page_server(inspected, SENTENCE, port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


def shoot_inspector(browser: Any, address: str, file: Path, width: int) -> None:
    """Mask two spans, put a wrong word in by hand, and point at it."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(address)
    settled = "body:not([aria-busy]) .token"
    page.wait_for_selector(settled)

    def act(action: Any) -> None:
        with page.expect_response(lambda response: response.url.endswith("/look")):
            action()
        page.wait_for_selector(settled)

    act(lambda: page.click("#clear"))
    for word in MASKED_WORDS:
        act(lambda word=word: page.click(f".word[data-word='{word}']"))
    position = page.get_attribute(f".word[data-word='{EDITED_WORD}']", "data-first")
    token = f".token[data-position='{position}']"
    page.click(token)
    page.fill("#typed", EDIT)
    act(lambda: page.press("#typed", "Enter"))
    # all of it in the window, for a picture that is taken by scrolling moves the page away from the pointer
    page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
    page.hover(token)
    save(page, file)


def save(page: Any, file: Path) -> None:
    """Write the picture and say how large it is."""
    page.screenshot(path=file, full_page=True)
    size = file.stat().st_size
    print(f"{file}: {size / 1000:.0f} kB")
    if size > LARGEST_BYTES:
        raise SystemExit(f"{file} is larger than {LARGEST_BYTES / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a run, or an export with its checkpoint")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver, inspector(arguments.run) as address:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        shoot_inspector(browser, address, arguments.out / "inspector.png", width=1280)
        shoot_inspector(browser, address, arguments.out / "inspector-narrow.png", width=390)
        browser.close()


if __name__ == "__main__":
    main()
