"""A healthy run stands beside its reference, one that has learned too little lags, and no other run is judged."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.health import HealthMonitor
from spanelectra.recipe_files import load_recipe
from spanelectra.reference_curves import FILE, LEAST_GAINS, ReferenceCurve, matching_curves, standing
from spanelectra.training_args import PretrainingArguments

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "reference_curves.py"
CURVE = ReferenceCurve("mlm_loss", 3, (1e6, 2e6, 4e6), (0.1, 1.0, 2.0), (0.3, 1.2, 2.2))


def settings_of(recipe: str, **changes: object) -> dict[str, object]:
    return dataclasses.asdict(PretrainingArguments(**{**load_recipe(recipe), **changes}))


def test_the_shipped_curves_are_those_of_runs_that_learned():
    for entry in json.loads(FILE.read_text())["curves"]:
        assert entry["runs"] >= 1 and entry["tokens"] == sorted(entry["tokens"])
        assert all(low <= high for low, high in zip(entry["lowest"], entry["highest"], strict=True))
        assert entry["lowest"][-1] > LEAST_GAINS[entry["metric"]]


@pytest.mark.parametrize(
    ("recipe", "changes", "metrics"),
    [
        ("tiny-generator", {}, ["mlm_loss"]),
        ("tiny-generator", {"max_steps": 100_000, "mask_ratio": 0.2}, ["mlm_loss"]),
        # other numbers of tokens at each step than the runs had
        ("tiny-generator", {"sequence_length": "0:32 1:128"}, []),
        ("tiny-generator", {"per_device_train_batch_size": "0:4 1:16"}, []),
        ("tiny-discriminator", {}, ["ato_auc"]),
        ("tiny-modern", {"method": "bert"}, ["mlm_loss"]),
        ("tiny-modern", {"method": "electra"}, ["mlm_loss", "ato_auc"]),
        # nothing of the kind has been measured
        ("tiny-generator", {"hidden_size": 256}, []),
        ("tiny-generator", {"init_from": "DIR"}, []),
        ("small", {}, []),
    ],
)
def test_a_run_has_the_reference_of_its_settings(recipe, changes, metrics):
    assert [curve.metric for curve in matching_curves(settings_of(recipe, **changes))] == metrics


def test_as_far_on_is_as_many_tokens_or_the_same_share_of_a_longer_way():
    assert CURVE.expected(3e6, 4e6) == pytest.approx((1.5, 1.7))
    # a shorter run decays earlier, and is no worse at as many tokens
    assert CURVE.expected(3e6, 3e6) == pytest.approx((1.5, 1.7))
    # of ten times the length: half of its way is half of theirs
    assert CURVE.expected(2e7, 4e7) == pytest.approx((1.0, 1.2))
    # before their first evaluation, and where they had hardly learned anything
    assert CURVE.expected(0.9e6, 4e6) is None
    assert CURVE.expected(1.1e6, 4e6) is None


@given(tokens=st.floats(1.0, 1e12), planned=st.floats(1.0, 1e12))
def test_what_is_expected_lies_between_the_curve_s_ends(tokens, planned):
    found = CURVE.expected(min(tokens, planned), planned)
    assert found is None or LEAST_GAINS["mlm_loss"] <= found[0] <= found[1] <= 2.2


def test_a_run_that_lags_is_told_from_one_that_does_not():
    well = standing(CURVE, {"mlm_loss": 5.4, "tokens": 4e6}, 2000, 2000, 7.0)
    assert well is not None and not well.lags and well.gain == pytest.approx(1.6)
    assert "1.60 nats below guessing by frequency, where reference runs, as far on, had 2.00 to 2.20" in well.sentence()
    badly = standing(CURVE, {"mlm_loss": 6.1, "tokens": 4e6}, 2000, 2000, 7.0)
    assert badly is not None and badly.lags
    whole = {"mlm_loss": 6.1, "tokens": 4e6}
    for metrics, unigram in (({"mlm_loss": 6.1}, 7.0), ({"tokens": 4e6}, 7.0), (whole, None)):
        assert standing(CURVE, metrics, 2000, 2000, unigram) is None
    auc = ReferenceCurve("ato_auc", 1, (1e6, 4e6), (0.05, 0.11), (0.05, 0.11))
    ranked = standing(auc, {"ato_auc": 0.54, "tokens": 4e6}, 2000, 2000, None)
    assert ranked is not None and ranked.lags
    assert "every token, is 0.040 above guessing, where reference runs, as far on, had 0.110 (" in ranked.sentence()


def test_the_alarm_sounds_where_a_run_lags_twice_in_a_row():
    monitor = HealthMonitor(7.0, max_steps=2000, references=[CURVE])
    gains = {500: 0.1, 1000: 0.2, 1200: 0.8, 1500: 0.3, 1800: 0.4, 2000: 0.4}
    sounded = {}
    for step, gain in gains.items():
        sounded[step] = monitor.check(step, {"mlm_loss": 7.0 - gain, "tokens": step * 2000.0})
    assert [step for step, alarms in sounded.items() if alarms] == [1800]
    assert "at step 1800 this run is far behind reference runs" in sounded[1800][0]
    assert not HealthMonitor(7.0, 2000).check(1800, {"mlm_loss": 6.6, "tokens": 3.6e6})


def test_the_grid_s_worst_run_lags_and_those_at_the_chosen_rates_do_not(tmp_path):
    """On the committed results: ELECTRA at twice the rates collapsed to 37.9 F1."""
    words = [sys.executable, SCRIPT, "--unigram_cross_entropy", "7.2317", "--out", tmp_path / "curves.json"]
    said = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
    verdicts = dict(line.split(": lags in ") for line in said.splitlines() if ": lags in " in line)
    assert verdicts["electra at 2 of the rates, joint, ato_auc"] == "8 of 8 evaluations"
    chosen = {"bert": 0.5, "spanbert": 0.25, "electra": 0.25, "spanelectra": 0.5}
    for title, verdict in verdicts.items():
        if any(title.startswith(f"{method} at {multiple:g} of") for method, multiple in chosen.items()):
            assert verdict.startswith("0 of ")
    made = json.loads((tmp_path / "curves.json").read_text())["curves"]
    assert {json.dumps(curve["settings"]) for curve in json.loads(FILE.read_text())["curves"]} <= {
        json.dumps(curve["settings"]) for curve in made
    }
