"""The linear probe is the slow obvious one, finds a signal where it is, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, PreTrainedModel

from factories import FAMILIES, encoder_config
from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import EncoderSource, open_encoder
from spanelectra.finetuning.linear_probe import (
    INVERSE_REGULARISATION,
    MAX_ITERATIONS,
    ProbeData,
    fresh_encoder,
    probe_layers,
)
from spanelectra.finetuning.task import Task
from spanelectra.finetuning.task_bench import TaskBench
from tiny_tasks import quick, write_task


def bench(directory: Path, kind: str, source: EncoderSource, **settings: object) -> TaskBench:
    ending = {"classification": "tsv", "token": "conll", "qa": "json"}[kind]
    files = {name: str(directory / f"{name}.{ending}") for name in ("train", "dev")}
    return TaskBench.read(quick(directory, files, directory / "out", **settings).resolved(), source.tokenizer)


@torch.no_grad()
def slow_states(encoder: PreTrainedModel, features: list[dict], layer: int) -> np.ndarray:
    """Hidden states of each unit of a layer, one input at a time, without padding."""
    rows = []
    for feature in features:
        inputs = {name: torch.tensor([feature[name]]) for name in ("input_ids", "attention_mask")}
        states = encoder(**inputs, output_hidden_states=True).hidden_states[layer][0].numpy()
        if isinstance(feature["labels"], list):
            rows += [state for state, label in zip(states, feature["labels"], strict=True) if label != -100]
        else:
            rows.append(states.mean(axis=0))
    return np.stack(rows)


def labels_of(features: list[dict]) -> list:
    return [label for feature in features for label in np.atleast_1d(feature["labels"]).tolist() if label != -100]


def slow_score(encoder: PreTrainedModel, task: Task, data: ProbeData, layer: int) -> float:
    """Accuracy of classes, or of words."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS))
    train, dev = list(data.train_features), list(data.dev_features)
    model.fit(slow_states(encoder, train, layer), labels_of(train))
    return 100 * model.score(slow_states(encoder, dev, layer), labels_of(dev))


@pytest.mark.parametrize("kind", ["classification", "token"])
def test_it_is_the_slow_obvious_one(kind: str, tiny: Path, tmp_path: Path) -> None:
    source = open_encoder(str(tiny / "bert"))
    write_task(tmp_path, kind, train=40, dev=20)
    probed = bench(tmp_path, kind, source, metric="accuracy")
    assert probed.data is not None
    found = probed.layers(source.encoder, source.tokenizer)
    expected = [slow_score(source.encoder, probed.task, probed.data, layer) for layer in range(3)]
    # a score is a number of examples, some of which may be tied
    assert found == pytest.approx(expected, abs=5.1 if kind == "classification" else 1.0)


def test_regression_is_ridge(tiny: Path, tmp_path: Path) -> None:
    source = open_encoder(str(tiny / "bert"))
    random = np.random.default_rng(0)
    for name, count in (("train", 40), ("dev", 20)):
        words = [random.choice(["mill", "river", "wheel"], 6) for _ in range(count)]
        lines = [f"{' '.join(sentence)}\t{(sentence == 'mill').sum() / 2}" for sentence in words]
        (tmp_path / f"{name}.tsv").write_text("sentence\tscore\n" + "\n".join(lines))
    probed = bench(tmp_path, "classification", source, regression=True)
    assert probed.data is not None
    found = probed.layers(source.encoder, source.tokenizer)
    train, dev = list(probed.data.train_features), list(probed.data.dev_features)
    for layer, score in enumerate(found or ()):
        model = make_pipeline(StandardScaler(), Ridge(alpha=1 / INVERSE_REGULARISATION))
        model.fit(slow_states(source.encoder, train, layer), labels_of(train))
        predicted = model.predict(slow_states(source.encoder, dev, layer))
        assert score == pytest.approx(100 * np.corrcoef(predicted, labels_of(dev))[0, 1], abs=0.1)
    assert found is not None and max(found) > 80


class PlantedEncoder(torch.nn.Module):
    """Hidden states of noise, but for one layer that holds the input's ids."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer, self.device = layer, torch.device("cpu")
        self.table = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, output_hidden_states: bool) -> object:
        generator = torch.Generator().manual_seed(int(input_ids.sum()))
        states = [torch.randn(*input_ids.shape, 100, generator=generator) for _ in range(4)]
        states[self.layer] = self.table[input_ids]
        return type("Output", (), {"hidden_states": states})


@pytest.mark.parametrize("kind", ["classification", "token"])
def test_it_finds_a_signal_in_the_layer_that_has_it(kind: str, tiny: Path) -> None:
    source = open_encoder(str(tiny / "bert"))
    probed = bench(tiny / kind, kind, source)
    scores = probed.layers(PlantedEncoder(2), source.tokenizer)  # type: ignore[arg-type]
    assert scores is not None and scores[2] > 90
    assert all(score < 75 for layer, score in enumerate(scores) if layer != 2)


def test_a_class_that_the_sample_lacks_is_never_answered(tiny: Path, tmp_path: Path) -> None:
    lines = ["the mill\tred", "the river\tblue"] * 10
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + "\n".join([*lines, "old trees\tgreen"]))
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nthe mill\tred\nold trees\tgreen\nthe river\tblue\n")
    source = open_encoder(str(tiny / "bert"))
    probed = bench(tmp_path, "classification", source)
    assert probed.data is not None
    data = ProbeData(probed.data.train_features[:20], probed.data.dev_examples, probed.data.dev_features)
    assert probe_layers(source.encoder, source.tokenizer, probed.task, data)[0] == pytest.approx(200 / 3)


def test_a_sample_of_one_class_is_refused(tiny: Path) -> None:
    source = open_encoder(str(tiny / "bert"))
    probed = bench(tiny / "classification", "classification", source)
    assert probed.data is not None
    data = ProbeData(probed.data.train_features[:10:2], probed.data.dev_examples, probed.data.dev_features)
    with pytest.raises(UserError, match="all of the 5 labels that a probe would learn from are one"):
        probe_layers(source.encoder, source.tokenizer, probed.task, data)


def test_question_answering_has_none(tiny: Path) -> None:
    source = open_encoder(str(tiny / "bert"))
    probed = bench(tiny / "qa", "qa", source)
    assert probed.data is None and probed.layers(source.encoder, source.tokenizer) is None


def test_the_encoder_is_left_as_it_is(tiny: Path) -> None:
    source = open_encoder(str(tiny / "modernbert"))
    probed, before = bench(tiny / "token", "token", source), source.fingerprint(weights=True)
    state = torch.get_rng_state()
    first = probed.layers(source.encoder, source.tokenizer)
    assert probed.layers(source.encoder, source.tokenizer) == first
    assert source.fingerprint(weights=True) == before and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_encoder_has_the_shape_and_draws_from_no_generator_of_others(family: str) -> None:
    torch.manual_seed(0)
    encoder, state = AutoModel.from_config(encoder_config(family)), torch.get_rng_state()
    one, same, other = (fresh_encoder(encoder, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: tensor.shape for name, tensor in one.items()} == {
        name: tensor.shape for name, tensor in encoder.state_dict().items()
    }
    table = next(name for name in one if "embeddings.weight" in name)
    assert torch.equal(one[table], same[table]) and not torch.equal(one[table], other[table])
    torch.manual_seed(1)
    assert torch.equal(one[table], AutoModel.from_config(encoder_config(family)).state_dict()[table])
