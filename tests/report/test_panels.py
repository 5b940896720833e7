"""Every number of the log has a picture."""

from __future__ import annotations

from pathlib import Path

from spanelectra.report.curves import read_curves
from spanelectra.report.panels import SECTIONS, sections_for
from spanelectra.report.run_record import read_runs


def test_no_metric_of_a_real_run_is_unknown(finished_run: Path) -> None:
    metrics = {name for curves in read_curves(read_runs([finished_run])[0]) for name in curves.values}
    sections = sections_for(metrics)
    assert "other" not in [section.key for section in sections]
    shown = {name for section in sections for panel in section.panels for name in panel.metrics}
    assert shown == metrics


def test_what_a_correcting_run_logs_is_known_too() -> None:
    names = ["correction_loss", "correction_unigram_loss", "correction_accuracy", "correction_loss_max"]
    sections = {section.key: section for section in sections_for(names)}
    assert sections.keys() == {"losses", "discriminator", "optimisation"}
    assert [panel.key for panel in sections["discriminator"].panels] == ["correction_accuracy"]


def test_a_metric_that_no_panel_knows_gets_its_own() -> None:
    (section,) = sections_for(["temperature <of> the room"])
    (panel,) = section.panels
    assert section.key == "other" and panel.metrics == {"temperature <of> the room": "temperature <of> the room"}
    assert panel.key.isidentifier()


def test_a_generator_alone_is_not_compared_with_a_discriminator() -> None:
    assert [section.key for section in sections_for(["generator_accuracy", "mlm_loss"])] == ["losses", "generator"]
    assert sections_for(["generator_accuracy", "ato_auc"])[0].key == "balance"


def test_keys_are_unique() -> None:
    keys = [panel.key for section in SECTIONS for panel in section.panels]
    assert len(keys) == len(set(keys))
