"""Regression: numbers are standardised for training and come back in their own units; correlations score them."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_texts import examples, scored, task, tokenizer

from spanelectra.errors import UserError


@given(
    mean=st.floats(-1e6, 1e6),
    deviation=st.floats(1e3, 1e6),
    labels=st.lists(st.floats(-3, 3), min_size=2, max_size=20, unique_by=lambda label: round(label, 2)),
)
def test_numbers_are_standardised_and_restored(mean: float, deviation: float, labels: list[float]) -> None:
    regression = task(regression=True)
    read = examples([mean + deviation * label for label in labels])
    regression.fit(read)
    features = regression.features(read, tokenizer(), 16, training=True)
    trained_on = np.float32([[feature["labels"]] for feature in features])
    assert trained_on.mean() == pytest.approx(0, abs=1e-5) and trained_on.std() == pytest.approx(1, abs=1e-5)
    assert regression.target_scale is not None
    restored = regression.target_scale.restored(trained_on)[:, 0]
    assert restored == pytest.approx([example.label for example in read], rel=1e-5, abs=1)
    # what is saved is the model's own business: it is opened without a scale
    assert regression.state() == {"labels": [], "columns": {}}


@pytest.mark.parametrize("labels", [[1e9, 1e9 + 1], [0.0, 1e300], [-1e308, 1e308]])
def test_numbers_that_float32_cannot_tell_apart_are_refused(labels: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"file\.tsv: the labels' mean is .* cannot tell such labels apart"):
            task(regression=True).fit(examples(labels))


def test_scores_are_those_of_the_definition() -> None:
    labels, predicted = [1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 20.0]
    centred = np.subtract(labels, np.mean(labels)), np.subtract(predicted, np.mean(predicted))
    pearson = centred[0] @ centred[1] / math.sqrt(centred[0] @ centred[0] * (centred[1] @ centred[1]))
    spearman = 1 - 6 * (0 + 1 + 1 + 0) / (4 * (16 - 1))  # ranks 1 2 3 4 and 1 3 2 4
    r2 = 1 - (0 + 1 + 1 + 15**2) / (centred[0] @ centred[0])
    assert scored(labels, predicted, regression=True) == pytest.approx(
        {"pearson": 100 * pearson, "spearman": 100 * spearman, "r2": 100 * r2}
    )


def test_predictions_that_are_constant_but_for_rounding_or_no_numbers_are_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nearly = scored([1.0, 2.0, 3.0], [1e6, 1e6 + 1e-9, 1e6], regression=True)
        assert all(math.isfinite(score) for score in nearly.values())
        assert scored([1.0, 2.0, 3.0], [math.nan] * 3, regression=True) == {"pearson": 0, "spearman": 0, "r2": -1e9}
        assert scored([0.0, 1e200], [0.0, 0.0], regression=True)["r2"] == -1e9


@given(labels=st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=6), constant=st.floats(-5, 5))
def test_a_constant_correlates_with_nothing(labels: list[float], constant: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = scored(labels, [constant] * len(labels), regression=True)
        assert (scores["pearson"], scores["spearman"]) == (0, 0) and scores["r2"] <= 1e-9


def test_the_baseline_of_regression_is_the_mean() -> None:
    classification = task(regression=True)
    baseline = classification.baseline(examples([1.0, 2.0, 6.0]), examples([1.0, 2.0]))
    assert baseline.name.startswith("always 3, the mean")
    assert baseline.scores == {"pearson": 0, "spearman": 0, "r2": pytest.approx(100 * (1 - (4 + 1) / 0.5))}
