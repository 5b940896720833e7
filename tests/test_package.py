"""The wheel carries the recipes and runs them; the README's map of files is true."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "spanelectra"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked by pip into a directory of its own."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(directory.glob("*.whl"))
    assert "spanelectra/recipes/tiny.yaml" in zipfile.ZipFile(wheel).namelist()
    target = directory / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def test_a_recipe_runs_from_the_installed_wheel(installed: Path, rows: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); import spanelectra; print(spanelectra.__file__); "
    code += "from spanelectra.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["pretrain", "--recipe", "tiny", "--data", str(rows), "--out_dir", str(tmp_path / "run")]
    arguments += ["--max_steps", "2", "--per_device_train_batch_size", "2", "--eval_rows", "4", "--logging_steps", "1"]
    command = [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-c", code]
    finished = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert str(installed) in finished.stdout
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_the_readme_names_every_source_file_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## The road through the code", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"^\| `([\w/]+\.py)`", section, flags=re.MULTILINE))
    present = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    assert named == {path for path in present if not path.endswith("__init__.py")}


def test_every_picture_is_on_a_page_and_every_link_leads_somewhere() -> None:
    led_to = set()
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s:]+)\)", text):
            file, _, heading = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), f"{page}: {link}"
            assert not heading or heading in _anchors(target), f"{page}: {link}"
            led_to.add(target)
    pictures = {path.resolve() for path in (ROOT / "docs").rglob("*.png")}
    assert pictures <= led_to


def _anchors(page: Path) -> set[str]:
    """A heading's name in a link, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_import_only_from_stations_before_them() -> None:
    """The README's order is the road: what a file imports at its top stands above it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## The road through the code", 1)[1].split("\n## ", 1)[0]
    order = re.findall(r"^\| `([\w/]+)\.py`", section, flags=re.MULTILINE)
    places = {name.replace("/", "."): place for place, name in enumerate(order)}
    for module, place in places.items():
        text = (SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        for imported in re.findall(r"^from spanelectra\.([\w.]+) import", text, flags=re.MULTILINE):
            assert places[imported] < place, f"{module} imports {imported}, which stands after it"
