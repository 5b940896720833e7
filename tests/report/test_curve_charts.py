"""What a chart of curves is drawn from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from report_runs import record
from spanelectra.recipe_files import load_recipe
from spanelectra.reference_curves import LAGS, matching_curves
from spanelectra.report.curve_charts import curve_chart
from spanelectra.report.curves import read_curves
from spanelectra.report.panels import SECTIONS
from spanelectra.training_args import PretrainingArguments

UNIGRAM = 7.2


def panel_of(key: str) -> Any:
    return next(panel for section in SECTIONS for panel in section.panels if panel.key == key)


def bands_of(key: str, recipe: str, **changes: Any) -> list[dict[str, Any]]:
    """The bands of a run of 2,000 steps, evaluated at four of them."""
    settings = dataclasses.asdict(PretrainingArguments(**{**load_recipe(recipe), "max_steps": 2000, **changes}))
    values = {"eval_loss": 1.0, "eval_mlm_loss": 5.0, "eval_ato_auc": 0.6}
    history = [{"step": step, "tokens": step * 2048.0, **values} for step in (10, 500, 1000, 2000)]
    run = record(metrics={"unigram_cross_entropy": UNIGRAM}, history=history, settings=settings)
    chart = curve_chart(panel_of(key), [run], [read_curves(run)])
    assert chart is not None
    return chart.specification["bands"]


@pytest.mark.parametrize(("key", "recipe"), [("mlm_loss", "tiny-generator"), ("auc", "tiny-discriminator")])
def test_the_band_is_from_the_best_reference_run_to_where_a_run_lags(key: str, recipe: str) -> None:
    (band,) = bands_of(key, recipe)
    (curve,) = matching_curves({**dataclasses.asdict(PretrainingArguments(**load_recipe(recipe)))})
    assert band["least"][0] is None and band["most"][0] is None, "hardly begun"
    lowest, highest = curve.expected(2000 * 2048.0, 2000 * 2048.0) or (0.0, 0.0)
    sign, guessing = (-1, UNIGRAM) if key == "mlm_loss" else (1, 0.5)
    assert band["least"][-1] == pytest.approx(guessing + sign * LAGS * lowest)
    assert band["most"][-1] == pytest.approx(guessing + sign * highest)
    assert band["lines"] == "0 held-out" and f"reference runs ({curve.runs})" in band["label"]


def test_there_is_none_where_nothing_of_the_kind_was_measured() -> None:
    assert bands_of("mlm_loss", "tiny-generator", hidden_size=256) == []
    assert bands_of("mlm_loss", "tiny-discriminator") == []
