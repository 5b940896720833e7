"""Pictures of the run report for README and docs, taken from real runs in a headless Chromium.

python benchmarks/screenshots_report.py RUN [RUN …] --out_dir docs

Needs playwright and a Chromium (Debian's package will do). Writes report-PART-WIDTH.png for each part of the page.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from spanelectra.run_page import report

# Width of the window in pixels -> its height.
SIZES = {1280: 1100, 390: 1400}
# Name -> the element of the page that the picture shows, as much of it as goes into the window.
PARTS = {"health": "#health", "curves": "#curves", "spans": "#spans", "fine-tuning": "#fine-tuning"}
# Where files lie on this machine is of no interest, and controls that stick to the window would cover what is below.
PREPARE = """() => {
  const places = new Set(["directory", "data", "text", "model", "train", "dev", "test"]);
  for (const row of document.querySelectorAll("tbody tr")) if (places.has(row.cells[0].textContent)) row.remove();
  const controls = document.getElementById("controls");
  if (controls) controls.style.position = "static";
}"""


def take(browser: Any, page_file: Path, out_dir: Path, scheme: str) -> None:
    """One picture for each part that the page has, and each width."""
    for width, height in SIZES.items():
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        tab.set_default_timeout(120_000)
        tab.goto(page_file.as_uri())
        tab.wait_for_selector("body[data-drawn=yes]")
        tab.evaluate(PREPARE)
        for name, selector in PARTS.items():
            part = tab.locator(selector)
            if part.count():
                part.evaluate("part => window.scrollTo({top: part.offsetTop, behavior: 'instant'})")
                box = part.bounding_box()
                clip = {"x": 0, "y": box["y"], "width": width, "height": min(box["height"], height - box["y"])}
                tab.screenshot(path=out_dir / f"report-{name}-{width}.png", clip=clip)
        tab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--rows", type=int, default=256)
    arguments = parser.parse_args()

    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        page_file = report(arguments.runs, f"{scratch}/report.html", rows=arguments.rows)
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        take(browser, page_file, arguments.out_dir, arguments.scheme)
        browser.close()


if __name__ == "__main__":
    main()
