"""A task's model: the encoder's weights to the bit, and a head that is fresh by the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from factories import FAMILIES
from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import EncoderSource, open_encoder
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.task import TargetScale, Task
from spanelectra.finetuning.task_data import read_splits
from spanelectra.finetuning.task_directory import make_task
from spanelectra.finetuning.task_models import build_task_model, fold_target_scale
from tiny_tasks import quick

CLASSES = {
    "classification": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "qa": "ForQuestionAnswering",
}


def settings_of(tiny: Path, kind: str, **changes: Any) -> FineTuningArguments:
    ending = {"classification": "tsv", "token": "conll", "qa": "json"}[kind]
    files = {name: str(tiny / kind / f"{name}.{ending}") for name in ("train", "dev")}
    return quick(tiny, files, tiny / "out", **changes).resolved()


def fitted_task(settings: FineTuningArguments) -> Task:
    task = make_task(settings)
    read_splits(task, settings)
    return task


def build(tiny: Path, family: str, kind: str, seed: int = 0, **changes: Any) -> tuple[PreTrainedModel, EncoderSource]:
    settings, source = settings_of(tiny, kind, **changes), open_encoder(str(tiny / family))
    return build_task_model(source, fitted_task(settings), settings, seed), source


def head_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What lies above the encoder; a pooler that no checkpoint filled is part of it."""
    inside = model.base_model_prefix + "."
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(inside) or name.startswith(f"{inside}pooler.")
    }


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_is_taken_to_the_bit_and_the_head_is_the_seeds(family: str, kind: str, tiny: Path) -> None:
    model, source = build(tiny, family, kind)
    assert type(model).__name__.endswith(CLASSES[kind])
    taken = encoder_of(model).state_dict()
    for name, tensor in source.encoder.state_dict().items():
        assert torch.equal(taken[name], tensor), name
    again, other = build(tiny, family, kind)[0], build(tiny, family, kind, seed=1)[0]
    first, same, different = head_of(model), head_of(again), head_of(other)
    assert first and all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    drawn = [name for name, tensor in first.items() if tensor.dim() == 2]
    assert drawn and not any(torch.equal(first[name], different[name]) for name in drawn)


def test_building_leaves_the_source_as_it_was(tiny: Path) -> None:
    source, settings = open_encoder(str(tiny / "modernbert")), settings_of(tiny, "token", dropout=0.3)
    before, labels = source.fingerprint(weights=True), dict(source.encoder.config.id2label)
    model = build_task_model(source, fitted_task(settings), settings, 0)
    with torch.no_grad():
        encoder_of(model).embeddings.tok_embeddings.weight.zero_()
    assert source.fingerprint(weights=True) == before
    assert source.encoder.config.id2label == labels and source.encoder.config.mlp_dropout == 0.0


@pytest.mark.parametrize("kind", ["classification", "token"])
def test_a_detectors_own_head_is_left_behind(kind: str, tiny: Path) -> None:
    # ModernBERT's has the names, and for two labels the shapes, of a task's
    stored = load_file(tiny / "modernbert" / "model.safetensors")
    head = head_of(build(tiny, "modernbert", kind)[0])
    assert "head.dense.weight" in stored and "head.dense.weight" in head
    for name, tensor in head.items():
        assert stored[name].shape != tensor.shape or not torch.equal(stored[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_are_other_weights(family: str, tiny: Path) -> None:
    model, source = build(tiny, family, "classification", random_weights=True)
    trained = source.encoder.state_dict()
    for name, tensor in encoder_of(model).state_dict().items():
        # the perturbed source has no constants, so that fresh biases and gains differ from it, too
        assert name not in trained or not torch.equal(tensor, trained[name]), name
    again = build(tiny, family, "classification", random_weights=True)[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_set_in_every_module(family: str, kind: str, tiny: Path) -> None:
    model, _ = build(tiny, family, kind, dropout=0.37)
    modules = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert {module.p for module in modules} <= {0.37} and (modules or family == "modernbert")
    inputs = torch.randint(5, 50, (2, 12))
    model.train()
    torch.manual_seed(0)
    outputs = [next(iter(model(inputs).values())) for _ in range(2)]
    assert not torch.equal(*outputs)
    default, _ = build(tiny, family, kind)
    assert torch.equal(*(next(iter(default.train()(inputs).values())) for _ in range(2)))


def test_modernbert_classifies_by_the_mean_over_tokens(tiny: Path) -> None:
    model, _ = build(tiny, "modernbert", "classification")
    inputs, mask = torch.randint(5, 50, (1, 12)), torch.ones(1, 12, dtype=torch.int64)
    mask[0, 8:] = 0
    hidden = encoder_of(model)(inputs, attention_mask=mask).last_hidden_state
    expected = model.classifier(model.head(hidden[:, :8].mean(dim=1)))
    torch.testing.assert_close(model.eval()(inputs, attention_mask=mask).logits, expected)


def test_labels_are_in_the_configuration(tiny: Path) -> None:
    model, _ = build(tiny, "bert", "token")
    assert model.config.id2label == {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
    assert model.config.label2id == {label: number for number, label in model.config.id2label.items()}


def test_an_encoder_that_does_not_fill_the_model_is_refused(tiny: Path) -> None:
    settings, source = settings_of(tiny, "token"), open_encoder(str(tiny / "bert"))
    source.encoder.config.hidden_size = 64
    with pytest.raises(UserError, match="bert cannot fill embeddings"):
        build_task_model(source, fitted_task(settings), settings, 0)


def test_a_family_without_such_a_class_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, source = settings_of(tiny, "token"), open_encoder(str(tiny / "bert"))
    monkeypatch.setattr(type(fitted_task(settings)), "model_class", "AutoModelForCTC")
    with pytest.raises(UserError, match="transformers has no AutoModelForCTC for the family 'bert'"):
        build_task_model(source, fitted_task(settings), settings, 0)


def regression_settings(tiny: Path, tmp_path: Path) -> FineTuningArguments:
    (tmp_path / "scores.tsv").write_text("sentence\tscore\nthe mill\t1500\na river\t4000\n")
    files = {name: str(tmp_path / "scores.tsv") for name in ("train", "dev")}
    return quick(tiny, files, tiny / "out", regression=True).resolved()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_regression_answers_in_the_files_units_once_its_scale_is_folded_in(
    family: str, tiny: Path, tmp_path: Path
) -> None:
    settings = regression_settings(tiny, tmp_path)
    task = fitted_task(settings)
    assert task.target_scale == TargetScale(2750.0, 1250.0)
    model = build_task_model(open_encoder(str(tiny / family)), task, settings, 0).eval()
    inputs = torch.randint(5, 50, (4, 12))
    before = model(inputs).logits.detach().numpy()
    fold_target_scale(model, task.target_scale)
    after = model(inputs).logits.detach().numpy()
    assert after == pytest.approx(before * 1250 + 2750, rel=1e-6)
    assert after == pytest.approx(task.target_scale.restored(before), rel=1e-6)


def test_a_head_that_takes_no_scale_is_refused_before_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = regression_settings(tiny, tmp_path)
    make = AutoModelForSequenceClassification.from_config

    def without_bias(*given: Any, **more: Any) -> PreTrainedModel:
        model = make(*given, **more)
        model.classifier.bias = None
        return model

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_config", without_bias)
    with pytest.raises(UserError, match="regression: BertForSequenceClassification does not end in a linear layer"):
        build_task_model(open_encoder(str(tiny / "bert")), fitted_task(settings), settings, 0)
