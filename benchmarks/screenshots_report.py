"""Pictures of the run report for README and docs, taken from real runs in a headless Chromium.

python benchmarks/screenshots_report.py RUN [RUN …] --parts health curves

Needs playwright and a Chromium (Debian's package will do). Writes report-PART-WIDTH.png for each part of the page.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from spanelectra.run_page import report

ROOT = Path(__file__).parent.parent
# Width of the window in pixels -> its height.
SIZES = {1280: 1100, 390: 1400}
# Name -> the element of the page that the picture shows, as much of it as goes into the window.
PARTS = {"health": "body", "runs": "#runs", "curves": "#curves", "spans": "#spans", "fine-tuning": "#fine-tuning"}
LARGEST_BYTES = 300_000
# Where files lie on this machine is of no interest, and controls that stick to the window would cover what is below.
PREPARE = """() => {
  const places = new Set(["directory", "data", "text", "model", "train", "dev", "test", "generator", "init_from"]);
  for (const row of document.querySelectorAll("tbody tr")) if (places.has(row.cells[0].textContent)) row.remove();
  const controls = document.getElementById("controls");
  if (controls) controls.style.position = "static";
}"""
A_PATH = re.compile(r"(?<![\w/])/(?:[\w.-]+/)+[\w.-]*")


def take(browser: Any, page_file: Path, out_dir: Path, scheme: str, parts: list[str], widths: list[int]) -> None:
    """One picture for each of the parts that the page has, and each width."""
    for width in widths:
        height = SIZES[width]
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        tab.set_default_timeout(300_000)
        tab.goto(page_file.as_uri())
        tab.wait_for_selector("body[data-drawn=yes]")
        tab.evaluate(PREPARE)
        if left := A_PATH.findall(tab.locator("body").inner_text()):
            raise SystemExit(f"the page shows where files lie: {', '.join(left)}; give runs that do not")
        for name in parts:
            part = tab.locator(PARTS[name])
            if not part.count():
                continue
            part.evaluate("part => window.scrollTo({top: part.offsetTop, behavior: 'instant'})")
            box = part.bounding_box()
            top = max(0, box["y"])
            clip = {"x": 0, "y": top, "width": width, "height": min(box["height"], height - top)}
            file = out_dir / f"report-{name}-{width}.png"
            tab.screenshot(path=file, clip=clip)
            size = file.stat().st_size
            print(f"{file}: {size / 1000:.0f} kB")
            if size > LARGEST_BYTES:
                raise SystemExit(f"{file} is larger than {LARGEST_BYTES / 1000:.0f} kB")
        tab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out_dir", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--widths", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()

    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        page_file = report(arguments.runs, f"{scratch}/report.html", rows=arguments.rows)
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        take(browser, page_file, arguments.out_dir, arguments.scheme, arguments.parts, arguments.widths)
        browser.close()


if __name__ == "__main__":
    main()
