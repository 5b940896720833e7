"""The page in a real browser: what it shows, what its controls do, and that everybody can use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Tab, browser  # noqa: F401 - fixture
from report_runs import seed_results, write_fine_tuning
from spanelectra.recipe_files import as_yaml, load_recipe
from spanelectra.report.run_record import RunRecord, read_runs
from spanelectra.run_page import report
from spanelectra.training_args import PretrainingArguments

HOSTILE = "<b>bold</b> &amp; <i>"


@pytest.fixture(scope="module")
def one_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one run, its model's pass over some rows included."""
    return report([str(finished_run)], str(tmp_path_factory.mktemp("one") / "page.html"), rows=32, quiet=True)


@pytest.fixture(scope="module")
def side_by_side(finished_run: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two pre-training runs and two of fine-tuning, with a name that must not become HTML."""
    place = tmp_path_factory.mktemp("several")
    seeds = [seed_results(seed, 80.0 + seed) for seed in range(3)]
    tasks = [write_fine_tuning(place / name, seeds) for name in ("task", HOSTILE.replace("/", "|"))]
    runs = [str(run) for run in (finished_run, generator_run, *tasks)]
    return report(runs, str(place / "page.html"), rows=0, quiet=True)


def open_page(browser: Any, file: Path, width: int = 1280, scheme: str = "light") -> Tab:  # noqa: F811
    tab = Tab(browser, width, scheme)
    # five megabytes of script, on whatever machine runs the tests
    tab.page.set_default_timeout(120_000)
    tab.page.goto(file.as_uri())
    settle(tab)
    return tab


def settle(tab: Tab, picture: str = "body") -> None:
    """Wait until a picture is drawn, or all of them are."""
    tab.page.wait_for_selector(f"{picture}[data-drawn=yes]")


@pytest.fixture(scope="module")
def tab(browser: Any, one_run: Path) -> Iterator[Tab]:  # noqa: F811
    """One run's page at 1280 pixels; every test leaves its controls as it found them."""
    yield open_page(browser, one_run)


@pytest.fixture(scope="module")
def several(browser: Any, side_by_side: Path) -> Iterator[Tab]:  # noqa: F811
    """Several runs' page on a small dark screen."""
    yield open_page(browser, side_by_side, 390, "dark")


@pytest.fixture
def logged(finished_run: Path) -> RunRecord:
    return read_runs([finished_run])[0]


def traces(tab: Tab, key: str) -> list[dict[str, Any]]:
    """What Plotly draws in a chart: name, points and look of each trace."""
    return tab.page.evaluate(
        "key => document.getElementById(`chart-${key}`).data.map(t => ({name: t.name, type: t.type, x: [...t.x], "
        "y: [...t.y], opacity: t.opacity ?? 1, color: t.line?.color}))",
        key,
    )


def trace(tab: Tab, key: str, name: str) -> dict[str, Any]:
    """The curve of that name, smoothed where it is."""
    return [found for found in traces(tab, key) if found["name"] == name and found["opacity"] == 1][-1]


def change(tab: Tab, action: Any, key: str = "mlm_loss") -> None:
    """Do something to a control, with the picture ``key`` in sight, and wait for that picture."""
    picture = f"#chart-{key}"
    tab.page.locator(picture).scroll_into_view_if_needed()
    tab.page.evaluate("picture => { document.querySelector(picture).dataset.drawn = 'no'; }", picture)
    action()
    settle(tab, picture)


def test_the_curves_are_the_logs_numbers_over_every_axis(tab: Tab, logged: RunRecord) -> None:
    training, held_out = logged.lines(held_out=False), logged.lines(held_out=True)
    curve = trace(tab, "mlm_loss", "MLM · held-out")
    assert curve["y"] == pytest.approx([line["eval_mlm_loss"] for line in held_out], rel=1e-6)
    assert curve["x"] == [line["step"] for line in held_out]
    for axis, expected in (
        ("tokens", [line["tokens"] for line in training]),
        ("minutes", [line["wall_seconds"] / 60 for line in training]),
        ("steps", [line["step"] for line in training]),
    ):
        change(tab, lambda axis=axis: tab.page.select_option("#axis", axis))
        curve = trace(tab, "mlm_loss", "MLM · training")
        assert curve["x"] == pytest.approx(expected)
        assert curve["y"] == pytest.approx([line["mlm_loss"] for line in training], rel=1e-6)
    change(tab, lambda: tab.page.select_option("#axis", "flops"))
    assert trace(tab, "mlm_loss", "MLM · training")["x"][-1] == pytest.approx(logged.metrics["training_flops"])
    change(tab, lambda: tab.page.select_option("#axis", "steps"))


def test_smoothing_is_a_debiased_average_with_the_log_behind_it(tab: Tab, logged: RunRecord) -> None:
    change(tab, lambda: tab.page.locator("#smoothing").fill("0.5"))
    losses, mean, mass, expected = [line["mlm_loss"] for line in logged.lines(held_out=False)], 0.0, 0.0, []
    for loss in losses:
        mean, mass = 0.5 * mean + 0.5 * loss, 0.5 * mass + 0.5
        expected.append(mean / mass)
    assert tab.page.text_content("#smoothing-value") == "0.50"
    assert trace(tab, "mlm_loss", "MLM · training")["y"] == pytest.approx(expected, rel=1e-6)
    raw = [found for found in traces(tab, "mlm_loss") if found["opacity"] < 1]
    assert len(raw) == 1 and raw[0]["y"] == pytest.approx(losses, rel=1e-6)
    change(tab, lambda: tab.page.locator("#smoothing").fill("0"))
    assert not [found for found in traces(tab, "mlm_loss") if found["opacity"] < 1]


def test_hovering_reads_a_point(tab: Tab, logged: RunRecord) -> None:
    chart = tab.page.locator("#chart-mlm_loss")
    chart.scroll_into_view_if_needed()
    plot = chart.locator(".nsewdrag").bounding_box()
    tab.page.mouse.move(plot["x"] + 5, plot["y"] + 40)
    tab.page.mouse.move(plot["x"] + plot["width"] - 6, plot["y"] + 60)
    label = chart.locator(".hoverlayer .legend")
    label.wait_for()
    last = logged.lines(held_out=True)[-1]["eval_mlm_loss"]
    assert f"{last:.5g}".rstrip("0") in label.text_content() and "held-out" in label.text_content()


def test_the_keyboard_reads_points_and_takes_curves_away(tab: Tab, logged: RunRecord) -> None:
    tab.page.locator("#chart-mlm_loss").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowRight")
    reading = tab.page.text_content("#reading-mlm_loss")
    second = logged.history[1]
    assert reading.startswith(f"optimiser steps {second['step']}: ") and "MLM · training" in reading
    tab.page.keyboard.press("Escape")
    assert tab.page.text_content("#reading-mlm_loss") == ""
    pressed = tab.page.locator("#legend-mlm_loss button")
    while not pressed.evaluate("button => button === document.activeElement"):
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate("document.activeElement.closest('figure')?.getAttribute('aria-labelledby')") == (
            "title-mlm_loss"
        )
    tab.page.keyboard.press("Enter")
    assert pressed.get_attribute("aria-pressed") == "false" and traces(tab, "mlm_loss") == []
    tab.page.keyboard.press("Enter")
    assert pressed.get_attribute("aria-pressed") == "true" and len(traces(tab, "mlm_loss")) == 3


def test_the_span_pictures_have_a_point_for_each_place(tab: Tab) -> None:
    curve = trace(tab, "span_tokens_loss", "MLM")
    assert curve["x"][0] == "1" and len(curve["x"]) == len(curve["y"]) > 1


def test_the_band_of_reference_runs_goes_with_its_run(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    runs = [tmp_path / name for name in ("like_them", "of_another_size")]
    for run, changes in zip(runs, ({}, {"hidden_size": 256}), strict=True):
        settings = PretrainingArguments(**{**load_recipe("tiny-generator"), "max_steps": 2000, **changes})
        steps = [{"step": 500 * n, "tokens": 1.024e6 * n, "eval_loss": 9.0, "eval_mlm_loss": 6.0} for n in range(5)]
        run.mkdir()
        (run / "config.yaml").write_text(as_yaml(settings))
        (run / "metrics.json").write_text(json.dumps({"steps": 2000, "unigram_cross_entropy": 7.2, "alarms": []}))
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in steps))
    tab = open_page(browser, report(list(map(str, runs)), str(tmp_path / "page.html"), rows=0, quiet=True))
    label = "healthy: as reference runs ("
    least, most = [found for found in traces(tab, "mlm_loss") if found["name"].startswith(label)]
    assert least["x"] == most["x"] == [500, 1000, 1500, 2000]
    assert all(low > high for low, high in zip(least["y"], most["y"], strict=True))
    assert label in tab.page.inner_text("#legend-mlm_loss")
    change(tab, tab.page.locator("input.run").first.uncheck)
    assert not [found for found in traces(tab, "mlm_loss") if found["name"].startswith(label)]
    assert label not in tab.page.inner_text("#legend-mlm_loss")


def test_runs_can_be_taken_away(several: Tab) -> None:
    assert {found["name"] for found in traces(several, "mlm_loss")} == {"joint", "generator", "guessing by frequency"}
    colour = trace(several, "mlm_loss", "generator")["color"]
    first = several.page.locator("input.run").first
    change(several, first.uncheck)
    assert {found["name"] for found in traces(several, "mlm_loss")} == {"generator", "guessing by frequency"}
    assert trace(several, "mlm_loss", "generator")["color"] == colour
    change(several, first.check)
    change(several, several.page.locator("#training").check)
    names = {found["name"] for found in traces(several, "mlm_loss")}
    assert {"joint · training", "joint · held-out", "generator · training"} < names


def test_seeds_are_dots_and_names_are_text(several: Tab) -> None:
    drawn = [found for found in traces(several, "fine_tuning_0") if found["type"] == "box"]
    assert [box["x"] for box in drawn[:2]] == [[80.0, 81.0, 82.0], [79.0, 80.0, 81.0]]
    legend = several.page.locator("#legend-fine_tuning_0_loss button").all_text_contents()
    assert legend[:2] == ["task", HOSTILE.replace("/", "|")]
    # what the test before chose may be drawn still
    settle(several)
    # at one moment, and not while ticks are drawn anew; a long name is in several lines, of which none is cut off
    texts, lefts, left = several.page.wait_for_function(
        """() => {
            const chart = document.getElementById("chart-fine_tuning_0");
            const ticks = [...chart.querySelectorAll(".ytick text")];
            const boxes = ticks.map((tick) => tick.getBoundingClientRect());
            if (boxes.length !== 4 || boxes.some((box) => !box.width)) return false;
            return [ticks.map((tick) => tick.textContent), boxes.map((box) => box.x), chart.getBoundingClientRect().x];
        }"""
    ).json_value()
    assert any(HOSTILE.replace("/", "|") in text for text in texts) and min(lefts) >= left


def test_the_keyboard_reads_seeds(several: Tab) -> None:
    several.page.locator("#chart-fine_tuning_0").focus()
    several.page.keyboard.press("ArrowRight")
    reading = several.page.text_content("#reading-fine_tuning_0")
    assert reading.startswith("accuracy task dev: seed 0 80, seed 1 81, seed 2 82, always 'good' 50")


def test_beside_others_a_run_shows_what_is_wrong_first(several: Tab) -> None:
    verdict = several.page.locator(".verdict", has=several.page.locator("h3", has_text="joint:"))
    assert verdict.locator("> ul .badge").all_text_contents()[1:] == ["Look"] * (verdict.locator("> ul li").count() - 1)
    folded = verdict.locator("details li")
    assert folded.count() and not folded.first.is_visible()
    verdict.locator("summary").click()
    assert folded.first.is_visible() and set(folded.locator(".badge").all_text_contents()) <= {"Good", "Note"}
    verdict.locator("summary").click()


def check_for_everybody(tab: Tab) -> None:
    settle(tab)
    assert not tab.is_wider_than_its_window()
    assert tab.page.locator(".chart .main-svg").count() >= 15
    assert tab.page.locator(".modebar-btn").first.get_attribute("data-title") == "Download plot as a PNG"
    assert tab.page.locator("[data-title*=Share]").count() == 0
    assert tab.complaints == []
    assert tab.accessibility_findings() == []


def test_everybody_can_use_it_on_a_large_light_screen(tab: Tab) -> None:
    check_for_everybody(tab)


def test_everybody_can_use_it_on_a_small_dark_one(several: Tab) -> None:
    check_for_everybody(several)
