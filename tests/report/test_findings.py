"""Is it healthy? The sentences follow the numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from report_runs import record
from spanelectra.recipe_files import load_recipe
from spanelectra.report.findings import Finding, last_held_out, overall, read_findings
from spanelectra.report.run_record import read_runs
from spanelectra.training_args import PretrainingArguments

HELD_OUT = {
    "mlm_loss": 6.0,
    "ato_auc": 0.8,
    "ato_accuracy": 0.9,
    "ato_majority_accuracy": 0.87,
    "ato_recall": 0.4,
    "replaced_rate": 0.9,
}


def finished(held_out: dict[str, Any], **metrics: Any) -> list[Finding]:
    """Findings on a run of 1,000 steps that ended so."""
    lines = [{"step": step, "eval_loss": 10.0, "eval_mlm_loss": held_out.get("mlm_loss")} for step in (500, 1000)]
    fields = {"steps": 1000, "held_out": held_out, "unigram_cross_entropy": 7.2, "alarms": [], **metrics}
    return read_findings(record(metrics=fields, history=lines, settings={"max_steps": 1000}))


def said(findings: list[Finding], words: str) -> Finding:
    """The one finding with these words in it."""
    (found,) = [finding for finding in findings if words in finding.sentence]
    return found


def test_a_run_that_learned_is_healthy() -> None:
    findings = finished(HELD_OUT)
    assert overall(findings) == ("good", "Healthy")
    assert "1.20 nats better" in said(findings, "guessing by frequency").sentence
    assert "AUC of 0.800" in said(findings, "reading every token").sentence
    assert "restores 10.0%" in said(findings, "Sampling").sentence


@pytest.mark.parametrize(("loss", "state"), [(5.0, "good"), (6.0, "note"), (6.5, "attention")])
def test_a_run_is_shown_beside_runs_that_went_well(loss: float, state: str) -> None:
    arguments = PretrainingArguments(**{**load_recipe("tiny-generator"), "max_steps": 2000})
    lines = [{"step": 2000, "eval_loss": 10.0, "eval_mlm_loss": loss, "tokens": 4096000.0}]
    fields = {"steps": 2000, "held_out": {"mlm_loss": loss}, "unigram_cross_entropy": 7.2, "alarms": []}
    settings = dataclasses.asdict(arguments)
    findings = read_findings(record(metrics=fields, history=lines, settings=settings))
    assert said(findings, "reference runs, as far on").state == state
    other = read_findings(record(metrics=fields, history=lines, settings={**settings, "hidden_size": 96}))
    assert not any("reference runs" in finding.sentence for finding in other)


def test_a_generator_of_an_earlier_run_is_not_said_to_learn() -> None:
    settings = {"max_steps": 1000, "stage": "discriminator", "generator": "runs/generator"}
    lines = [{"step": step, "eval_loss": 10.0, "eval_mlm_loss": 6.0} for step in (500, 750, 1000)]
    fields = {"steps": 1000, "held_out": HELD_OUT, "unigram_cross_entropy": 7.2, "alarms": []}
    findings = read_findings(record(metrics=fields, history=lines, settings=settings))
    assert said(findings, "The generator is that of runs/generator; it does not learn here").state == "note"
    assert "restores 10.0%" in said(findings, "Sampling").sentence
    assert not any("guessing by frequency" in finding.sentence for finding in findings)
    # of corrupted rows there is no generator
    findings = read_findings(record(metrics=fields, settings={**settings, "generator": None}))
    assert said(findings, "written beforehand, by spanelectra corrupt").state == "note"
    assert not any("Sampling" in finding.sentence for finding in findings)


@pytest.mark.parametrize(
    ("change", "words", "state"),
    [
        ({"mlm_loss": 7.19}, "guessing by frequency", "problem"),
        ({"ato_auc": 0.51}, "reading every token", "problem"),
        ({"ato_recall": 0.02}, "finds only 2.0%", "attention"),
    ],
)
def test_a_run_that_did_not_is_not(change: dict[str, float], words: str, state: str) -> None:
    findings = finished({**HELD_OUT, **change})
    assert said(findings, words).state == state == overall(findings)[0]


def test_verdicts_that_add_nothing_are_no_good_news() -> None:
    findings = finished({**HELD_OUT, "ato_accuracy": 0.87})
    assert said(findings, "ranks tokens, but its verdicts add nothing yet").state == "note"
    assert overall(findings)[0] == "good"


def test_what_is_wrong_comes_right_after_how_far_it_got() -> None:
    findings = finished({**HELD_OUT, "ato_auc": 0.51, "mlm_loss": 6.5}, alarms=["a sentence"])
    states = [finding.state for finding in findings]
    assert states[:3] == ["good", "problem", "attention"] and not {"problem", "attention"} & set(states[3:])
    assert "Finished" in findings[0].sentence and "a sentence" in findings[2].sentence


def test_the_first_steps_are_not_judged(finished_run: Path) -> None:
    findings = read_findings(read_runs([finished_run])[0])
    assert overall(findings)[0] == "attention"
    assert said(findings, "Finished: 6 steps").state == "good"
    assert said(findings, "guessing by frequency").state == "attention"


def test_a_rising_held_out_loss_is_told() -> None:
    lines = [{"step": step, "eval_loss": loss, "eval_mlm_loss": loss} for step, loss in ((1, 7.0), (2, 6.0), (3, 6.5))]
    assert "from 6.00 at step 2 to 6.50" in said(read_findings(record(history=lines)), "rose").sentence


def test_an_unfinished_run_sounds_the_alarms_of_its_history() -> None:
    verdicts = {"ato_accuracy": 0.8, "ato_majority_accuracy": 0.9, "ato_auc": 0.5}
    lines = [{"step": step, "loss": 1.0, **verdicts} for step in (100, 600)]
    settings = {"max_steps": 1000, "stage": "joint"}
    unfinished = record(history=lines, settings=settings, start={"alarms": ["first"]}, rollbacks=["second"])
    alarms = [finding.sentence for finding in read_findings(unfinished) if finding.sentence.startswith("Alarm")]
    assert alarms[:2] == ["Alarm: first", "Alarm: second"]
    assert len(alarms) == 3 and "at step 600: accuracy 0.800 against 0.900" in alarms[2]
    assert said(read_findings(unfinished), "step 600 of 1,000").state == "attention"
    assert said(read_findings(unfinished), "Nothing was evaluated").state == "attention"


def test_a_line_that_lacks_a_number_stops_nothing() -> None:
    lines = [{"step": 600, "loss": 1.0, "ato_accuracy": 0.8, "ato_auc": 0.5}]
    assert read_findings(record(history=lines, settings={"max_steps": 1000}))


def test_a_loss_that_is_no_number_is_a_problem() -> None:
    findings = read_findings(record(history=[{"step": 1, "loss": 3.0}, {"step": 2, "loss": "nan"}]))
    assert said(findings, "at step 2").state == "problem"


def test_before_it_joins_a_discriminator_is_not_judged() -> None:
    settings = {"stage": "joint", "generator_head_start": 0.5, "max_steps": 1000}
    line = {
        "step": 400,
        "eval_loss": 9.0,
        "eval_ato_auc": 0.4,
        "eval_ato_accuracy": 0.5,
        "eval_ato_majority_accuracy": 0.9,
    }
    findings = read_findings(record(settings=settings, history=[line]))
    assert said(findings, "joins at step 500").state == "note" and not any("AUC" in f.sentence for f in findings)


def test_the_last_evaluation_stands_in_for_the_results_of_an_unfinished_run() -> None:
    lines = [
        {"step": 1, "eval_loss": 2.0},
        {"step": 2, "eval_loss": 1.0, "eval_mlm_loss": "nan"},
        {"step": 3, "loss": 1.0},
    ]
    assert last_held_out(record(history=lines)) == {"step": 2, "loss": 1.0}


def test_a_slow_machine_is_noticed() -> None:
    lines = [{"step": step, "loss": 1.0, "tokens_per_second": 100.0 if step % 5 else 10.0} for step in range(20)]
    assert "In 20% of the log" in said(read_findings(record(history=lines)), "below half").sentence
