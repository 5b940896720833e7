"""What was run, as tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from report_runs import copy_run, record
from spanelectra.flops import count_parameters
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.report.run_record import read_runs
from spanelectra.report.run_tables import comparability, overview, results_table, settings_table
from spanelectra.training_args import PretrainingArguments


def test_the_overview_describes_model_data_and_machine(finished_run: Path, rows: Path) -> None:
    (found,) = read_runs([finished_run])
    table = overview([found])
    cells = dict(table.rows)
    model = SpanElectraForPreTraining.from_pretrained(finished_run / "model")
    assert cells["parameters"] == f"{count_parameters(model):,}"
    assert cells["data"] == str(rows) and cells["steps"] == "6 of 6" and cells["tokens read"] == "768"
    assert cells["encoder"] == "modernbert, 2 layers of width 32, generator of 0.5 times the width"
    assert "torch" in cells["versions"] and table.heading == ["", "joint"]
    train = found.data["splits"]["train"]
    assert cells["times through the data"] == f"{768 / (train['rows'] * 32):.4f}"


def test_what_the_rows_no_longer_tell_the_run_still_does(finished_run: Path) -> None:
    (found,) = read_runs([finished_run])
    before = dict(overview([found]).rows)
    gone = dict(overview([dataclasses.replace(found, data={})]).rows)
    assert gone["rows"] == before["rows"] and gone["times through the data"] == before["times through the data"]
    assert "vocabulary" not in gone


def test_settings_are_those_that_differ_from_the_defaults(finished_run: Path) -> None:
    (found,) = read_runs([finished_run])
    shown = {row[0]: row[1:] for row in settings_table([found], all_settings=False).rows}
    defaults = dataclasses.asdict(PretrainingArguments().resolved())
    differing = {name for name, value in found.settings.items() if value != defaults[name]}
    assert set(shown) == differing - {"data", "out_dir", "quiet"}
    assert shown["hidden_size"] == ["128", "32 *"] and shown["eval_rows"] == ["512", "8 *"]
    everything = {row[0] for row in settings_table([found], all_settings=True).rows}
    assert {"adam_beta1", "hidden_size"} <= everything


def test_a_star_is_for_what_the_recipe_does_not_set() -> None:
    settings = {"recipe": "tiny", "optimizer": "muon", "max_steps": 7}
    shown = {row[0]: row[2] for row in settings_table([record(settings=settings)], all_settings=False).rows}
    assert shown == {"optimizer": "muon", "max_steps": "7 *"}


def test_a_setting_that_an_older_run_did_not_have_is_no_choice() -> None:
    both = [
        record(settings={"max_steps": 7}),
        record(settings={"max_steps": 7, "probe_steps": 1000, "mask_ratio": 0.2}),
    ]
    shown = {row[0]: row[1:] for row in settings_table(both, all_settings=False).rows}
    assert shown == {"max_steps": ["1000", "7 *", "7 *"], "mask_ratio": ["0.15", "–", "0.2 *"]}
    everything = {row[0]: row[2:] for row in settings_table(both, all_settings=True).rows}
    assert everything["probe_steps"] == ["–", "1000 (no effect)"]


def test_a_setting_that_changes_nothing_is_said_to_and_is_not_among_the_chosen() -> None:
    alone = record(settings={"method": "bert", "max_span_words": 3, "muon_learning_rate": 0.5, "mask_ratio": 0.3})
    shown = {row[0]: row[2] for row in settings_table([alone], all_settings=False).rows}
    assert shown == {"mask_ratio": "0.3 *"}
    everything = {row[0]: row[2] for row in settings_table([alone], all_settings=True).rows}
    assert everything["max_span_words"] == "3 * (no effect)" and everything["mask_ratio"] == "0.3 *"
    # in one of two it does something
    spans = record(settings={"method": "spanbert", "max_span_words": 3, "muon_learning_rate": 0.5})
    shown = {row[0]: row[2:] for row in settings_table([alone, spans], all_settings=False).rows}
    assert shown["max_span_words"] == ["3 * (no effect)", "3 *"] and "muon_learning_rate" not in shown
    # and two in which it does nothing are no different
    other = record(settings={**alone.settings, "max_span_words": 4})
    assert [row[0] for row in settings_table([alone, other], all_settings=False).rows] == ["mask_ratio"]
    assert comparability([alone, other]) is None and comparability([alone, spans]) is not None
    written = dataclasses.replace(
        record(settings={"stage": "discriminator", "mask_ratio": 0.3}), start={"data": {"corrupted": True}}
    )
    assert settings_table([written], all_settings=False).rows == []


def test_an_unknown_recipe_or_setting_is_no_obstacle() -> None:
    settings = {"recipe": "gone", "stage": "nonsense", "future_setting": [1, 2]}
    shown = {row[0]: row[1:] for row in settings_table([record(settings=settings)], all_settings=False).rows}
    assert shown == {"future_setting": ["none", "1, 2 *"]}


def test_results_name_the_best_run_and_what_guessing_scores() -> None:
    runs = [
        record(metrics={"held_out": {"mlm_loss": loss, "ato_auc": auc}, "unigram_cross_entropy": 7.0})
        for loss, auc in ((6.0, 0.7), (5.0, 0.6))
    ]
    table = results_table(runs)
    assert table.rows[0][1:] == ["7.000", "6.000", "5.000 (best)"]
    assert table.rows[1][1:] == ["0.5", "0.7000 (best)", "0.6000"]
    assert [row[2] for row in results_table(runs[:1]).rows] == ["6.000", "0.7000"]


def test_of_runs_that_were_asked_other_questions_none_is_best() -> None:
    runs = [
        record(metrics={"held_out": {"mlm_loss": loss}}, settings={"mask_ratio": ratio})
        for loss, ratio in ((6.0, 0.15), (5.0, 0.3))
    ]
    assert results_table(runs).rows[0][2:] == ["6.000", "5.000"]


def test_runs_that_were_asked_other_questions_are_not_compared_silently() -> None:
    one, other = record(settings={"data": "a", "mask_ratio": 0.15}), record(settings={"data": "a", "mask_ratio": 0.3})
    assert comparability([one, one]) is None
    assert (
        "mask_ratio" in str(comparability([one, other]))
        and "data" not in str(comparability([one, other])).split(":")[0]
    )


def test_an_unfinished_run_counts_the_parameters_of_its_checkpoint(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "metrics.json"))
    cells, whole = (dict(overview(read_runs([place])).rows) for place in (run, finished_run))
    assert cells["parameters"] == whole["parameters"]
    (run / "checkpoint-3" / "model.safetensors").write_bytes(b"rubbish")
    (run / "checkpoint-6" / "model.safetensors").unlink()
    assert "parameters" not in dict(overview(read_runs([run])).rows)
