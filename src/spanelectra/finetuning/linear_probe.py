"""Linear probe: what a frozen encoder's layers hold, found by a logistic regression on each (Alain & Bengio 2017).

No weight of the encoder moves, so a probe takes seconds and cannot hide a bad encoder behind a good fine-tuning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.errors import UserError
from spanelectra.finetuning.inference import length_batches, model_inputs
from spanelectra.finetuning.task import Feature, Logits, Task
from spanelectra.losses import IGNORE_INDEX

# scikit-learn's inverse strength of L2 on standardised features; strong, for examples are few and features many.
INVERSE_REGULARISATION = 0.1
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class ProbeData:
    """What is probed, in the units that are classified: whole inputs, or the first tokens of words.

    Attributes:
        train_features: with labels.
        dev_examples: scored by the task.
        dev_features: of them, with labels, so that it is known which tokens are asked about.
    """

    train_features: Sequence[Feature]
    dev_examples: Sequence[Any]
    dev_features: Sequence[Feature]


def probe_layers(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, data: ProbeData, batch_size: int = 64
) -> list[float]:
    """Score of a linear classifier on every layer's hidden states.

    A text is the mean over its tokens; a word is its first token.

    Args:
        encoder: without a head; left in evaluation mode.
        tokenizer: pads.
        task: a classification (or regression) or token classification task that has learned its labels.
        data: features and examples.
        batch_size: features at once.

    Returns:
        The task's metric for the embeddings' output and each layer from the bottom.

    Raises:
        UserError: where all training labels are the same.
    """
    is_regression = task.config_changes()["num_labels"] == 1
    states, labels = _training_states(encoder, tokenizer, data.train_features, batch_size)
    if not is_regression and len(np.unique(labels)) < 2:
        raise UserError(f"all of the {len(labels):,} labels that a probe would learn from are one; draw more examples.")
    classifiers = [_fit(layer_states, labels, is_regression=is_regression) for layer_states in states]
    del states
    answers: list[list[Logits]] = [[np.empty(0, dtype=np.float32)] * len(data.dev_features) for _ in classifiers]
    for index, units in _states(encoder, tokenizer, data.dev_features, batch_size):
        for layer, classifier in enumerate(classifiers):
            answers[layer][index] = _answers(classifier, units[layer], task, data.dev_features[index])
    predictions = [task.predict(data.dev_examples, data.dev_features, logits) for logits in answers]
    return [task.score(data.dev_examples, predicted)[task.metric] for predicted in predictions]


def fresh_encoder(encoder: PreTrainedModel, seed: int) -> PreTrainedModel:
    """An encoder of the same shape on the same device with fresh weights; torch's generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        # the processor's alone, which draws the weights; torch.manual_seed would seed accelerators, too
        torch.default_generator.manual_seed(seed)
        fresh = AutoModel.from_config(encoder.config, dtype=torch.float32)
    return fresh.to(encoder.device)


def _states(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, features: Sequence[Feature], batch_size: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield each feature's index and the (layers + 1, units, hidden) hidden states of its units; in no order."""
    encoder.eval()
    names = sorted(model_inputs(encoder) & {"input_ids", "attention_mask", "token_type_ids"})
    for chosen, batch in length_batches(tokenizer, features, names, batch_size):
        with torch.inference_mode():
            output = encoder(**batch.to(encoder.device), output_hidden_states=True)
        # (batch, layers + 1, length, hidden)
        states = torch.stack(output.hidden_states, dim=1).float().cpu().numpy()
        for index, values in zip(chosen, states, strict=True):
            yield index, _units(values, features[index])


def _training_states(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, features: Sequence[Feature], batch_size: int
) -> tuple[list[NDArray[np.float32]], NDArray[Any]]:
    """For each layer (units, hidden) hidden states, and (units,) labels, both in the order of the features."""
    labels = [np.atleast_1d(feature["labels"]) for feature in features]
    labels = [values[values != IGNORE_INDEX] for values in labels]
    ends = np.cumsum([len(values) for values in labels])
    states: list[NDArray[np.float32]] = []
    for index, units in _states(encoder, tokenizer, features, batch_size):
        if not states:
            # made once, for a copy would need the memory twice
            states = [np.empty((ends[-1], units.shape[-1]), dtype=np.float32) for _ in units]
        for layer_states, layer_units in zip(states, units, strict=True):
            layer_states[ends[index] - len(labels[index]) : ends[index]] = layer_units
    return states, np.concatenate(labels)


def _units(states: NDArray[np.float32], feature: Feature) -> NDArray[np.float32]:
    """(layers + 1, length, hidden) of one feature, padding included -> (layers + 1, units, hidden)."""
    labels = feature["labels"]
    if np.ndim(labels) == 0:
        return states[:, : len(feature["input_ids"])].mean(axis=1, keepdims=True)
    return states[:, np.flatnonzero(np.asarray(labels) != IGNORE_INDEX)]


def _fit(states: NDArray[np.float32], labels: NDArray[Any], *, is_regression: bool) -> Pipeline:
    if is_regression:
        model: Any = Ridge(alpha=1 / INVERSE_REGULARISATION)
    else:
        model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        # a probe that has not settled after so many iterations says enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), model).fit(states, labels)


def _answers(classifier: Pipeline, units: NDArray[np.float32], task: Task, feature: Feature) -> Logits:
    """What a model's logits of one feature would be: (labels,), or (length, labels) where tokens have labels."""
    if hasattr(classifier, "predict_log_proba"):
        # classes that the training sample lacks are never answered
        answers = np.full((len(units), task.config_changes()["num_labels"]), -np.inf, dtype=np.float32)
        # a probability so small that it is 0 has a logarithm all the same
        with np.errstate(divide="ignore"):
            answers[:, classifier.classes_] = classifier.predict_log_proba(units)
    else:
        answers = classifier.predict(units).reshape(-1, 1).astype(np.float32)
        if task.target_scale is not None:
            answers = task.target_scale.restored(answers)
    labels = np.asarray(feature["labels"])
    if labels.ndim == 0:
        return answers[0]
    logits = np.zeros((len(labels), answers.shape[1]), dtype=np.float32)
    logits[labels != IGNORE_INDEX] = answers
    return logits
